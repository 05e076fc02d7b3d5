"""Adapters on disk or on the hub: the base they name, and loading them onto it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_inspect.internals import find
from peft_inspect.load.lora.lora import known_fields, peft_config
from peft_inspect.load.lora.pattern_time import require_end
from peft_inspect.load.lora.wrap import wrap
from peft_inspect.load.model.location import Folder, Location
from peft_inspect.load.model.named import Code, HubRepo, Named, named
from peft_inspect.load.quiet import quiet
from peft_inspect.records import AdapterFile, InspectionError, Subject, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

_CONFIG = "adapter_config.json"
_GENERATING = ("CAUSAL_LM", "SEQ_2_SEQ_LM")


def holds_adapter(location: Location) -> bool:
    """Whether the place is an adapter, complete or not, or a folder of adapters, rather than a model."""
    if location.find(_CONFIG) is not None:
        return True
    if not isinstance(location, Folder) or location.find("config.json") is not None:
        return False
    return any(path for pattern in (_CONFIG, f"*/{_CONFIG}", "adapter_model*") for path in location.path.glob(pattern))


def read_files(name: str) -> tuple[AdapterFile, ...]:
    """The adapters in a folder or hub repository, read by their headers."""
    from peft_inspect.load.adapter.adapters import read_adapter_files

    return read_adapter_files(name)


def base_of(files: Sequence[AdapterFile], override: str | None) -> tuple[str, Named]:
    """The base model of an adapter, as written and as recognised.

    Args:
        files: the adapters; several in one folder share their base.
        override: the base that the user named instead.

    Raises:
        InspectionError: none is named, or what is named is not there, or is code, which a file has no right to have run.
    """
    if override:
        return override, named(override)
    adapter = files[0]
    base = adapter.config.get("base_model_name_or_path")
    if not base:
        raise InspectionError(f"{adapter.path} does not name its base model: say which it is with --base MODEL")
    try:
        form = named(str(base))
    except InspectionError as error:
        raise InspectionError(
            f"{adapter.path} names the base model {base!r}, which is not on this machine: say where it is with --base MODEL"
        ) from error
    if isinstance(form, Code):
        raise InspectionError(
            f"{adapter.path} names the base model {base!r}, which is code and not run because a file says so: "
            "where you trust it, name it yourself with --base"
        )
    revision = adapter.config.get("revision")
    if isinstance(form, HubRepo) and revision and form.revision is None:
        return f"{base}@{revision}", replace(form, revision=str(revision))
    return str(base), form


def attach(subject: Subject, files: Sequence[AdapterFile]) -> Subject:
    """Load adapters onto the model, the first one active and trainable, as a resumed training would.

    Without weights only their structure is built; their tensors are judged from the file's header. A model that cannot
    generate, as the backbone that a server runs, takes adapters of generating models without their task.

    Raises:
        InspectionError: PEFT does not take a config for this model, or the file does not load.
    """
    first, *others = (_nameable(adapter, subject.model) for adapter in files)
    model = _first(subject, first)
    for other in others:
        _add(model, subject, other)
    return replace(
        subject,
        model=model.train(),
        adapter_files=(*subject.adapter_files, first, *others),
        requested=first.config,
        source_file=_config_file(first) or subject.source_file,
    )


def _nameable(adapter: AdapterFile, model: torch.nn.Module) -> AdapterFile:
    """The adapter under a name that it can have in the model: a folder may be called as a module or an attribute is, or with dots."""
    from torch.nn import ModuleDict, ParameterDict

    taken = {part for path in (*dict(model.named_modules()), *dict(model.named_parameters())) for part in path.split(".")}
    name = re.sub(r"\W", "_", adapter.adapter)
    if name in taken or hasattr(ModuleDict, name) or hasattr(ParameterDict, name) or name == "training" or name.startswith("lora_"):
        name = f"adapter_{name}"
    return replace(adapter, adapter=name)


def _first(subject: Subject, adapter: AdapterFile) -> torch.nn.Module:
    try:
        model = wrap(subject.model, _fields(subject, adapter, inference_mode=False), adapter.adapter)
    except InspectionError as error:
        raise InspectionError(f"the adapter {adapter.path} does not go onto {_named_base(subject)}: {error}") from error
    if subject.weights != "none":
        with _loading(adapter):
            _fill(model, adapter)
    return model


def _add(model: Any, subject: Subject, adapter: AdapterFile) -> None:
    """A further adapter as PEFT loads it: frozen and inactive."""
    fields = _fields(subject, adapter, inference_mode=True)
    require_end(fields, model)
    with _loading(adapter, "; to check it by itself, name its folder as MODEL"):
        model.add_adapter(adapter.adapter, peft_config(fields), low_cpu_mem_usage=subject.weights == "none")
        if subject.weights != "none":
            _fill(model, adapter)


def _fields(subject: Subject, adapter: AdapterFile, *, inference_mode: bool) -> dict[str, Any]:
    """The config to build the adapter with."""
    fields = {**known_fields(adapter.config), "inference_mode": inference_mode}
    if fields.get("task_type") in _GENERATING and not hasattr(subject.model, "prepare_inputs_for_generation"):
        fields["task_type"] = None
    return fields


def _named_base(subject: Subject) -> str:
    """The base model by name and class."""
    kind = type(subject.model).__name__
    return kind if subject.source == kind else f"{subject.source} ({kind})"


def _fill(model: Any, adapter: AdapterFile) -> None:
    """Load the tensors of the file. What it lacks, and tensors of another shape, are for the rules to report, not a failure to load."""
    from peft.utils import ModulesToSaveWrapper, load_peft_weights, set_peft_model_state_dict

    copies = find("AuxiliaryTrainingWrapper") or ModulesToSaveWrapper
    tensors = load_peft_weights(_folder(adapter), device="cpu")
    live = model.state_dict()
    for path, module in model.named_modules():
        if isinstance(module, copies):  # the one kind of module whose tensors PEFT takes for granted
            for key, live_key in module.adapter_state_dict_load_map(adapter.adapter).items():
                tensors.setdefault(f"{path}.{key}", live[f"{path}.{live_key}"])
    set_peft_model_state_dict(model, tensors, adapter.adapter, ignore_mismatched_sizes=True)


@contextmanager
def _loading(adapter: AdapterFile, advice: str = "") -> Iterator[None]:
    try:
        with quiet():
            yield
    except Exception as error:  # PEFT's own checks, damaged files, layers that the base does not have
        raise InspectionError(f"the adapter {adapter.path} does not load onto its base model: {text_of(error)}{advice}") from error


def _folder(adapter: AdapterFile) -> str:
    path = Path(adapter.path)
    return str(path.parent if path.is_file() else path)


def _config_file(adapter: AdapterFile) -> str | None:
    path = Path(_folder(adapter)) / _CONFIG
    return str(path) if path.is_file() else None
