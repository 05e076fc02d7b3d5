"""Why PEFT rejects a config for a model, and a config that it takes."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from peft_inspect.load.words import closest, listed
from peft_inspect.records import InspectionError

_ADAPTABLE = (torch.nn.Linear, Conv1D, torch.nn.Embedding, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.MultiheadAttention)
_LINEAR = (torch.nn.Linear, Conv1D)
_ROUTER = re.compile(r"(^|_)(router|gate)$")  # training it unsettles which expert gets which token: not to be suggested


def rejection(model: torch.nn.Module, fields: Mapping[str, Any], config: Any, error: Exception) -> InspectionError:
    """The error that explains PEFT's own.

    Args:
        model: the base model; wrapping may have stopped half-way, so some of its layers may be adapter layers.
        fields: what was asked for.
        config: the PEFT config as PEFT left it, with shorthands resolved.
        error: what PEFT raised.
    """
    from peft.utils import NoMatchingPeftModuleError

    modules = _base_modules(model)
    refused = _refused(model, config, modules)
    unsupported = [path for path in _matched(config, modules) if not isinstance(modules[path], _ADAPTABLE)]
    if refused:
        return _of_refused(model, fields, modules, refused)
    if isinstance(error, NoMatchingPeftModuleError) or fields.get("target_modules") is fields.get("target_parameters") is None:
        return _of_no_match(model, fields, modules)
    if unsupported and "not supported" in str(error):
        return _of_unsupported(model, fields, config, modules, unsupported)
    if "modules_to_save cannot be applied" in str(error):
        return _of_saved_target(model, fields, modules)
    if isinstance(error, NotImplementedError) and "embeddings" in str(error):
        return InspectionError(
            f"PEFT asks every model for its input embeddings, and {type(model).__name__} does not say which they are: build it in a callable of "
            "your own, as train.py:build_model, where get_input_embeddings is defined on a subclass, or wrap a part of it"
        )
    task = fields.get("task_type")
    if task and isinstance(error, AttributeError):
        return InspectionError(
            f"task_type={task} asks for what {type(model).__name__} does not have ({error}): leave task_type out, or name a model for that task"
        )
    return InspectionError(f"PEFT rejects this {fields['peft_type']} config for {type(model).__name__}: {error or type(error).__name__}")


def _base_modules(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Modules by path as they were before the wrapping: an adapter layer counts as its base layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules: dict[str, torch.nn.Module] = {}
    inside: str | None = None
    for path, module in model.named_modules():
        if not path or (inside is not None and path.startswith(inside)):
            continue
        adapted = isinstance(module, BaseTunerLayer)
        modules[path] = module.get_base_layer() if adapted else module
        inside = f"{path}." if adapted else None
    return modules


def _matched(config: Any, modules: Mapping[str, torch.nn.Module]) -> list[str]:
    from peft.tuners.tuners_utils import check_target_module_exists

    if getattr(config, "target_modules", None) is None or config.target_modules == "all-linear":
        return []
    return [path for path in modules if check_target_module_exists(config, path)]


def _refused(model: torch.nn.Module, config: Any, modules: Mapping[str, torch.nn.Module]) -> list[str]:
    """Names that PEFT refuses on this architecture, among those that the config reaches: state space mixers read their weights directly."""
    from peft.tuners import tuners_utils

    check = getattr(tuners_utils, "_check_lora_target_modules_mamba", None)
    if check is None:  # this PEFT has no such list
        return []
    refused = []
    for name in dict.fromkeys(path.rpartition(".")[2] for path in _matched(config, modules)):
        try:
            check(config, model, name)
        except ValueError:
            refused.append(name)
    return refused


def _of_refused(
    model: torch.nn.Module, fields: Mapping[str, Any], modules: Mapping[str, torch.nn.Module], refused: list[str]
) -> InspectionError:
    example = next(path for path in modules if path.rpartition(".")[2] in refused)
    asked = fields.get("target_modules")
    entries = asked if isinstance(asked, list | tuple | set) else _leaf_names(model, modules)
    read = {path.rpartition(".")[2] for path in modules if _read_by_its_parent(path, modules)}
    works = [entry for entry in entries if entry.rpartition(".")[2] not in {*refused, *read}] or [
        name for name in _leaf_names(model, modules) if name not in {*refused, *read}
    ]
    return InspectionError(
        f"{type(model).__name__} passes the weights of {', '.join(map(repr, refused))} to a fused kernel ({example}, for one), so an adapter there "
        f"would never run and PEFT refuses it. A config that works: {_setting('target_modules', works)}"
    )


def _read_by_its_parent(path: str, modules: Mapping[str, torch.nn.Module]) -> bool:
    """Whether the code of the parent reads the weight of this module instead of calling it, on one of its paths at least."""
    parent, _, name = path.rpartition(".")
    if not isinstance(modules[path], _ADAPTABLE) or parent not in modules:
        return False
    return f"self.{name}.weight" in _source(type(modules[parent]))


@functools.cache
def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # a class without source
        return ""


def _of_no_match(model: torch.nn.Module, fields: Mapping[str, Any], modules: Mapping[str, torch.nn.Module]) -> InspectionError:
    asked, parameters = fields.get("target_modules"), fields.get("target_parameters")
    name = type(model).__name__
    names = _leaf_names(model, modules)
    if not names:
        experts = list(dict.fromkeys(entry for path, module in modules.items() for entry in _expert_parameters(module, path)))
        works = [_setting("target_parameters", experts)] if experts else [_setting("target_modules", found)] if (found := _convolutions(modules)) else []
        return InspectionError(
            f"{name} has no linear layer that an adapter could go on" + (f". A config that works: {works[0]}" if works else "")
        )
    works = _setting("target_modules", names)
    if asked is None and parameters is None:
        return InspectionError(
            f"PEFT has no default target_modules for {name}: say which, for example {works}, or --target-modules all-linear"
        )
    if parameters and not asked:
        known = [path for path, parameter in model.named_parameters() if parameter.ndim == 3]
        near = list(dict.fromkeys(near for entry in parameters for near in closest(entry, (".".join(path.split(".")[-3:]) for path in known))))
        return InspectionError(f"no parameter of {name} ends in {_shown(parameters)}. A config that works: {_setting('target_parameters', near) if near else works}")
    entries = [asked] if isinstance(asked, str) else list(asked or ())
    reached = [path for path in modules if any(path == entry or path.endswith(f".{entry}") for entry in entries)]
    if reached:
        dropped = {key: fields[key] for key in ("layers_to_transform", "layers_pattern", "exclude_modules", "modules_to_save") if fields.get(key)}
        return InspectionError(
            f"all {len(reached)} modules that target_modules={_shown(asked)} reaches in {name} ({reached[0]}, for one) are dropped by "
            f"{' and '.join(f'{key}={_shown(value)}' for key, value in dropped.items())}: nothing is left to adapt"
        )
    # Only spellings that can be slips of the pen: q_proj is near c_proj, and means something else.
    near = list(dict.fromkeys(near for entry in entries for near in closest(entry.rpartition(".")[2], names, limit=1, cutoff=0.85)))
    kind = f"matches the regular expression {asked!r}" if isinstance(asked, str) else f"is called {' or '.join(map(repr, sorted(entries)))}"
    return InspectionError(
        f"no module of {name} {kind}: its linear layers are called {listed(names, 12)}. "
        f"A config that works: {_setting('target_modules', near or names)}"
    )


def _of_saved_target(model: torch.nn.Module, fields: Mapping[str, Any], modules: Mapping[str, torch.nn.Module]) -> InspectionError:
    """A layer that is to be adapted and to be trained in full: by the user's wish, or as the head of the task."""
    saved = {str(name).rpartition(".")[2] for name in fields.get("modules_to_save") or ()}
    heads = {path for path in modules if "." not in path}
    names = [name for name in _leaf_names(model, modules) if name not in saved | heads]
    why = f"modules_to_save={_shown(saved)}" if saved else f"task_type={fields.get('task_type')} does so with the head"
    return InspectionError(
        f"target_modules={_shown(fields.get('target_modules'))} reaches a layer of {type(model).__name__} that is to be trained in full as well "
        f"({why}): it can only be one of both. A config that works: {_setting('target_modules', names)}"
    )


def _of_unsupported(
    model: torch.nn.Module, fields: Mapping[str, Any], config: Any, modules: Mapping[str, torch.nn.Module], unsupported: list[str]
) -> InspectionError:
    path = unsupported[0]
    if fields.get("target_modules") == "all-linear":  # PEFT shortens the paths it found, and some endings fit other modules too
        bad = {name.rpartition(".")[2] for name, module in modules.items() if not isinstance(module, _ADAPTABLE)}
        names = [name for name in _leaf_names(model, modules) if name not in bad]
        return InspectionError(
            f"PEFT's own list for all-linear reaches {path} of {type(model).__name__}, a {type(modules[path]).__name__}, which is no linear layer. "
            f"A config that works: {_setting('target_modules', names)}"
        )
    inside = [
        child for child, module in modules.items() if child.startswith(f"{path}.") and isinstance(module, _LINEAR)
    ]
    bad = {name.rpartition(".")[2] for name in unsupported}
    good = dict.fromkeys(
        name.rpartition(".")[2] for name in _matched(config, modules) if isinstance(modules[name], _ADAPTABLE) and name.rpartition(".")[2] not in bad
    )
    within = dict.fromkeys(f"{path.rpartition('.')[2]}{child.removeprefix(path)}" for child in inside)
    experts = _expert_parameters(modules[path], path)
    works = []
    if good or within or not experts:
        works.append(_setting("target_modules", [*good, *within] or _leaf_names(model, modules)))
    if experts:
        works.append(_setting("target_parameters", experts))
    return InspectionError(
        f"target_modules={_shown(fields.get('target_modules'))} reaches {path}, a {type(modules[path]).__name__}, which PEFT cannot adapt: "
        f"it is neither a linear layer nor an embedding, a convolution or nn.MultiheadAttention. A config that works: {', '.join(works)}"
    )


def _leaf_names(model: torch.nn.Module, modules: Mapping[str, torch.nn.Module]) -> list[str]:
    """Last path parts of the linear layers, most frequent first, without the output head."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    counts: dict[str, int] = {}
    for path, module in modules.items():
        name = path.rpartition(".")[2]
        if isinstance(module, _LINEAR) and module is not head and not name.isdecimal() and not _ROUTER.search(name):
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: -counts[name])


def _convolutions(modules: Mapping[str, torch.nn.Module]) -> list[str]:
    kinds = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    names = (path.rpartition(".")[2] for path, module in modules.items() if isinstance(module, kinds) and module.groups == 1)
    return [name for name in dict.fromkeys(names) if not name.isdecimal()]


def _expert_parameters(module: torch.nn.Module, path: str) -> list[str]:
    """Fused expert weights held directly by a module, as entries of target_parameters."""
    if "expert" not in f"{path}.{type(module).__name__}".lower():
        return []
    parent = ".".join(path.split(".")[-2:])
    return [f"{parent}.{name}" for name, parameter in module.named_parameters(recurse=False) if parameter.ndim == 3]


def _setting(field: str, values: Iterable[str]) -> str:
    return f"{field}={json.dumps(list(values))}"


def _shown(value: Any) -> str:
    return json.dumps(sorted(value) if isinstance(value, set) else value, default=str)
