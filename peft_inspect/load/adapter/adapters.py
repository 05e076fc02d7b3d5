"""Adapters on disk or on the hub, read by their config and the header of their safetensors file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from peft_inspect.load.adapter.foreign import as_peft, weights_name
from peft_inspect.load.adapter.safetensors_values import read_tensors
from peft_inspect.load.files import read_mapping
from peft_inspect.load.lora.lora_values import check_values
from peft_inspect.load.model.location import Folder, Location
from peft_inspect.load.model.named import HubRepo, LocalFolder, named
from peft_inspect.load.words import listed
from peft_inspect.records import AdapterFile, InspectionError

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def read_adapter_files(path_or_id: str) -> tuple[AdapterFile, ...]:
    """The adapters in a folder or hub repository: the one at its top is called "default", those in sub-folders by their folder.

    Args:
        path_or_id: a local folder, its adapter_config.json, or a hub id, with `@revision` if need be.

    Raises:
        InspectionError: there is no adapter, its weights are missing, a pickle or sharded, or a file is damaged.
    """
    form = named(path_or_id)
    if isinstance(form, LocalFolder):
        return tuple(_with_those_below(_read(Folder(folder), name)) for folder, name in _folders(form.path))
    if isinstance(form, HubRepo):
        from peft_inspect.load.model.hub import Repository

        return (_read(Repository(form.repo, form.revision), "default"),)
    raise InspectionError(f"{path_or_id!r} is no adapter: give a folder with an {CONFIG}, or a hub id")


def _folders(folder: Path) -> Iterator[tuple[Path, str]]:
    """The folders with adapters, and the names of these."""
    below = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    steps = {path: int(match[1]) for path in below if (match := _CHECKPOINT.fullmatch(path.name))}
    others = [path for path in below if path not in steps]
    if (folder / CONFIG).is_file():
        yield folder, "default"
    elif steps and not others:  # a trainer's output folder: its checkpoints are one adapter at several times
        yield max(steps, key=lambda path: steps[path]), "default"
    elif not others:
        raise InspectionError(Folder(folder).absent(CONFIG))
    for path in others:
        yield path, path.name


def _read(location: Location, adapter: str) -> AdapterFile:
    config_file = location.find(CONFIG)
    if config_file is None:
        raise InspectionError(location.absent(CONFIG))
    config = read_mapping(config_file)
    own = None if config.get("peft_type") else weights_name(config)
    if not config.get("peft_type") and own is None:
        raise InspectionError(f"{config_file} is no adapter config: it has no peft_type")
    weights = location.find(own or WEIGHTS)
    if weights is None:
        raise InspectionError(location.absent(own) if own else _without_weights(location))
    tensors = read_tensors(weights)
    fields = as_peft(config, tensors, str(config_file)) if own else config
    check_values(fields, str(config_file))
    return AdapterFile(path=str(config_file.parent), config=fields, tensors=tensors, adapter=adapter)


def _with_those_below(file: AdapterFile) -> AdapterFile:
    """The adapter at the top of a folder, with the sub-folders that hold a trained one where it is not."""
    if not _untrained(file):
        return file
    below = (_read(Folder(path.parent), path.parent.name) for path in sorted(Path(file.path).glob(f"*/{CONFIG}")) if _complete(path.parent))
    return replace(file, trained_below=tuple(Path(other.path).name for other in below if not _untrained(other)))


def _complete(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() and bool(read_mapping(folder / CONFIG).get("peft_type"))


def _untrained(file: AdapterFile) -> bool:
    """Whether the factor that begins at zero is zero in every layer."""
    second = [tensor for tensor in file.tensors if "lora_B" in tensor.key or "lora_embedding_A" in tensor.key]
    return bool(second) and all(tensor.zero for tensor in second)


def _without_weights(location: Location) -> str:
    """Why the weights cannot be read."""
    if isinstance(location, Folder) and os.path.lexists(location.path / WEIGHTS):
        return location.absent(WEIGHTS)
    if location.find(PICKLE) is not None:
        return (
            f"{location.name} has its weights in {PICKLE}, a pickle, which can run any code when it is opened, so it is not read: "
            f"load it once with PEFT where you trust it and save it again, which writes {WEIGHTS}"
        )
    if location.find(f"{WEIGHTS}.index.json") is not None:
        return f"{location.name} has its weights in several shards, which PEFT does not load as an adapter: save them in one {WEIGHTS}"
    if isinstance(location, Folder):
        shards = sorted(path.name for path in location.path.glob("adapter_model*.safetensors"))
        if shards:
            return f"{location.name} has no {WEIGHTS}, the file that PEFT loads; it holds {listed(shards)}"
    return location.absent(WEIGHTS)
