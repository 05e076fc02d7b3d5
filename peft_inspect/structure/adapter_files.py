"""An adapter file against the live model: what the model wants of it, and where its tensors go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_inspect.reading import user_path
from peft_inspect.records import AdapterFile, AdapterInfo, InspectionError, Structure, Subject, TensorInfo
from peft_inspect.structure.inventory import take_inventory
from peft_inspect.structure.merged import judged_merge
from peft_inspect.structure.new_modules import new_modules
from peft_inspect.structure.owners import Owner, owners_of
from peft_inspect.structure.saved_keys import SavedKeys

if TYPE_CHECKING:
    from torch import nn

# Copies of a base model whose names say how they are stored; an adapter of one fits them all.
_STORAGE = re.compile(r"(-unsloth)?-(bnb|4bit|8bit|awq|gptq|int4|int8|fp8|nf4|gguf|hf)\b.*$")
_DEPTHS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim")


def adapter_evidence(subject: Subject, structure: Structure) -> tuple[AdapterFile, ...]:
    """The adapter files of the subject, compared with its model, and the adapters that it was loaded with for inference."""
    files = tuple(compared(file, subject.model, structure, _base_name(subject)) for file in subject.adapter_files)
    if subject.merged_onto is not None:
        files = tuple(_with_merge(file, subject, structure, subject.merged_onto) for file in files)
    named = {file.adapter for file in files}
    loaded = (
        _in_memory(adapter, structure) for adapter in structure.adapters if _for_use(adapter, structure) and adapter.name not in named
    )
    return files + tuple(adapter for adapter in loaded if adapter.tensors)


def compared(file: AdapterFile, model: nn.Module, structure: Structure, base_name: str | None = None) -> AdapterFile:
    """The file with what the model wants of it. Of values only whether they are zero is read, where there are any.

    Args:
        file: as `read_adapter_files` gives it.
        model: the live model.
        structure: of that model.
        base_name: what the base model was named by, where its config does not say.

    Returns:
        The file, where `expected` holds the keys and shapes that PEFT would save for the adapter of that name (else the
        active one), modules_to_save included, and `layer_of` the module path of each. Both are empty for a model without
        such an adapter, and for tuners that PEFT cannot save without values.
    """
    owners = owners_of(take_inventory(model))
    counterpart = _counterpart(file, owners, structure)
    if counterpart is None:
        return replace(file, structure=structure)
    owner, name = counterpart
    keys = SavedKeys(owner, name)
    tensors = keys.loaded(file.tensors)
    base_weights = {key: live for tensor in tensors if (key := tensor.loads_as or tensor.key) not in keys.live and (live := keys.held(key))}
    expected = {**keys.live, **base_weights} if keys.live else {}
    zero = keys.zero()
    return replace(
        file,
        tensors=tensors,
        expected={key: keys.shapes[live] for key, live in expected.items()},
        layer_of=_layers({key: keys.path(live) for key, live in expected.items()}, structure),
        structure=structure,
        live_zero=frozenset(key for key, live in expected.items() if live in zero),
        base=_base(file, owner, structure, base_name),
        new_modules=new_modules(owner, structure, keys),
    )


def _with_merge(file: AdapterFile, subject: Subject, structure: Structure, folders: tuple[str, str]) -> AdapterFile:
    """The file with what became of it in the merged checkpoint, whose base is not the one that its config names."""
    counterpart = _counterpart(file, owners_of(take_inventory(subject.model)), structure)
    merged = judged_merge(file, *counterpart, Path(folders[0]), Path(folders[1])) if counterpart else None
    asked = file.config.get("base_model_name_or_path")
    same = _same_name(str(asked), folders[1]) if asked else None
    return replace(file, merged=merged, base={**file.base, "name": folders[1], "same_name": same})


def _counterpart(file: AdapterFile, owners: tuple[Owner, ...], structure: Structure) -> tuple[Owner, str] | None:
    """The adapter of the model that the file is for: of the same name, else the active one, else the first."""
    held = [(owner, name) for owner in owners for name, config in owner.configs.items() if not getattr(config, "is_prompt_learning", False)]
    active = {(adapter.owner, adapter.name) for adapter in structure.adapters if adapter.active}

    def fit(pair: tuple[Owner, str]) -> tuple[bool, bool]:
        return pair[1] == file.adapter, (pair[0].path, pair[1]) in active

    return max(held, key=fit, default=None)


def _layers(paths: Mapping[str, str], structure: Structure) -> dict[str, str]:
    """Key → the adapter layer that holds the parameter, or the module that modules_to_save copied, or the module itself."""
    held = {path: layer.path for layer in structure.adapter_layers for path in layer.parameters}
    found = {}
    for key, path in paths.items():
        parameter = structure.parameter.get(path)
        module = parameter.module if parameter else path.rpartition(".")[0]
        found[key] = held.get(path) or re.sub(r"\.modules_to_save\.[^.]+(?=\.|$).*", "", module)
    return found


def _base_name(subject: Subject) -> str | None:
    """The base as the user, or the adapter's own config, named it: a folder or hub id; None for code and live objects."""
    name = subject.base_name or subject.source
    return None if ":" in name or name == type(subject.model).__name__ else name


def _base(file: AdapterFile, owner: Owner, structure: Structure, named: str | None) -> dict[str, Any]:
    """The base that was inspected. `same_name` is None where two names cannot be told apart by reading them."""
    config = structure.model_config
    text = config.get("text_config")
    sizes: Mapping[str, Any] = {**(text if isinstance(text, Mapping) else {}), **config}
    name = config.get("_name_or_path") or getattr(getattr(owner.module, "config", None), "_name_or_path", None) or named
    asked = file.config.get("base_model_name_or_path")
    return {
        "name": name or None,
        "class": structure.module[owner.base_path].type,
        "depth": _first(sizes, _DEPTHS),
        "width": _first(sizes, _WIDTHS),
        "same_name": _same_name(str(asked), str(name)) if asked and name else None,
    }


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def _same_name(one: str, other: str) -> bool | None:
    """Whether two names of base models mean the same one: folders by where they are, hub ids by their names."""
    if one == other or _plain_name(one) == _plain_name(other):
        return True
    try:
        here = [user_path(name.partition("@")[0]) for name in (one, other)]
    except InspectionError:  # a file can name what can be no path
        return None
    if all(path.exists() for path in here):
        return here[0].resolve() == here[1].resolve()
    hub_ids = not any(path.exists() or path.is_absolute() or name.count("/") > 1 for path, name in zip(here, (one, other), strict=True))
    return False if hub_ids else None


def _plain_name(name: str) -> str:
    return _STORAGE.sub("", name.rstrip("/").rpartition("/")[2].partition("@")[0].lower())


def _for_use(adapter: AdapterInfo, structure: Structure) -> bool:
    """Whether it was loaded to be used: PEFT puts all of such a model in eval mode. What was just made is in train mode."""
    adapts = any(layer.adapter == adapter.name for layer in structure.adapter_layers)
    return adapter.inference_mode and adapts and structure.mode == "eval"


def _in_memory(adapter: AdapterInfo, structure: Structure) -> AdapterFile:
    """A loaded adapter as far as its values tell of it."""
    below = f"{adapter.owner}." if adapter.owner else ""
    layer_of = {
        path: layer.path
        for layer in structure.adapter_layers
        if layer.adapter == adapter.name and layer.path.startswith(below)
        for path in layer.parameters
    }
    held = (structure.parameter[path] for path in layer_of)
    tensors = tuple(TensorInfo(weight.path, weight.shape, weight.dtype, zero=weight.zero) for weight in held)
    return AdapterFile("", adapter.config, tensors, adapter.name, layer_of=layer_of, structure=structure, in_memory=True)
