"""The line of the user's that left the state a finding is about, where it happened before anything ran.

Where the program did it under our eyes, `Changes` knows. Of a model that was there already, the source may tell: what only one line of
the user's files writes was written there. Asked only for findings, so that a healthy model costs nothing.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from peft_inspect.records import Finding, Origin, Source
from peft_inspect.structure.source.lines import is_library, is_machinery, is_peft, source
from peft_inspect.structure.source.statements import writing_line
from peft_inspect.structure.source.written import only_place, within

if TYPE_CHECKING:
    from types import CodeType

    from torch import nn

    from peft_inspect.run.changes import Changes
    from peft_inspect.structure.source.lines import Line

_HALVES = (torch.float16, torch.bfloat16)
_SPELLED = {
    "frozen": ("requires_grad", "requires_grad_"),
    "unfrozen": ("requires_grad", "requires_grad_"),
    "cast": ("half", "bfloat16"),
    "taken-off": ("unload", "merge_and_unload", "delete_adapter"),
    "checkpointing": ("gradient_checkpointing_enable", "gradient_checkpointing"),
}


def placed(
    findings: Iterable[Finding], model: nn.Module, changes: Changes | None, optimizers: Sequence[Any], loss: Any = None
) -> Iterator[Finding]:
    """The findings, those with an origin at the line that left it, if it is known.

    Args:
        findings: of one model.
        model: this model, live.
        changes: what was seen of the program before the step; None for a model that was there already.
        optimizers: those that train it.
        loss: the user's function, whose file may tell.
    """
    for finding in findings:
        if finding.origin is None:
            yield finding
            continue
        found: Source | None = None
        origin: Origin | None = finding.origin
        while origin is not None and found is None:
            line = None if changes is None else _seen(finding, origin, model, changes, optimizers)
            found = source(line) if line is not None else _read(origin, model, optimizers, loss) if finding.source is None else None
            origin = origin.otherwise
        yield finding if found is None else replace(finding, source=found)


def _seen(finding: Finding, origin: Origin, model: nn.Module, changes: Changes, optimizers: Sequence[Any]) -> Line | None:
    match origin.what:
        case "frozen":
            return _first(changes.frozen_by, _parameters(model, finding))
        case "unfrozen":
            return _first(changes.unfrozen_by, _parameters(model, finding))
        case "collated":
            return _first(partial(writing_line, name=origin.names[0]), _collators())
        case "written":
            return _first(changes.written_by, _parameters(model, finding))
        case "cast":
            return _cast(model, finding, changes) or _first(changes.added_by, _configs(model, origin.adapter))
        case "taken-off":
            return changes.taken_off_by
        case "checkpointing":
            return changes.checkpointing_by
        case "clipping":
            return changes.clipped_by
        case "added":
            return _first(changes.added_by, _configs(model, origin.adapter))
        case "wrapped":
            return changes.last_built(model.modules())
    things: dict[str, Callable[[], Iterable[Any]]] = {
        "adapter-config": lambda: _configs(model, origin.adapter),
        "model-config": lambda: _model_configs(model),
        "optimizer": lambda: reversed(optimizers),
    }
    built = [line for thing in things[origin.what]() if (line := changes.built_by(thing)) is not None]
    exact = (exact for line in built if (exact := within(line, origin.names)) is not None)
    return next(exact, built[0] if built and not origin.exact else None)


def _read(origin: Origin, model: nn.Module, optimizers: Sequence[Any], loss: Any) -> Source | None:
    names = (*origin.names, *_SPELLED.get(origin.what, ()))
    if origin.what == "optimizer":
        names += tuple(type(optimizer).__name__ for optimizer in optimizers)
    return only_place(_files(model, loss), names) if names else None


def _first(line_of: Callable[[Any], Line | None], things: Iterable[Any]) -> Line | None:
    return next((line for thing in things if (line := line_of(thing)) is not None), None)


def _parameters(model: nn.Module, finding: Finding) -> Iterator[nn.Parameter]:
    """What the modules of a finding hold; adapters before the base."""
    for path in finding.modules:
        held = dict(model.get_submodule(path).named_parameters())
        yield from (parameter for _, parameter in sorted(held.items(), key=lambda item: "base_layer" in item[0]))


def _collators() -> list[CodeType]:
    """The function of the user's that makes batches of samples, where there is one and no other."""
    loaders = [other for other in gc.get_objects() if issubclass(type(other), DataLoader)]
    functions = [getattr(loader.collate_fn, "data_collator", loader.collate_fn) for loader in loaders]
    codes = {getattr(getattr(each, "__func__", each), "__code__", getattr(type(each).__call__, "__code__", None)) for each in functions}
    own = [code for code in codes if code is not None and _is_users(code)]
    return own if len(own) == 1 else []


def _cast(model: nn.Module, finding: Finding, changes: Changes) -> Line | None:
    """Who cast the adapters in the modules of a finding to half precision, or the base layers that they were made like."""
    for path in finding.modules:
        layer = model.get_submodule(path)
        bases = [weight for name, weight in layer.named_parameters() if "base_layer" in name.split(".")]
        for weight in layer.parameters():
            if weight.dtype in _HALVES and (line := changes.cast_by(weight, next(iter(bases), None))) is not None:
                return line
    return None


def _configs(model: nn.Module, adapter: str | None) -> Iterator[Any]:
    """The configs of an adapter, or of all of them."""
    for module in model.modules():
        held = getattr(module, "peft_config", None)
        if isinstance(held, dict):
            yield from (config for name, config in held.items() if adapter in (None, name))


def _model_configs(model: nn.Module) -> Iterator[Any]:
    seen: set[int] = set()
    for module in model.modules():
        config = vars(module).get("config")
        if config is not None and id(config) not in seen:
            seen.add(id(config))
            yield config


def _files(model: nn.Module, loss: Any) -> Iterator[str]:
    """The user's own files that the model and the loss come from."""
    functions = [loss, *(getattr(kind, "forward", None) for kind in dict.fromkeys(map(type, model.modules())))]
    codes = (getattr(inspect.unwrap(function), "__code__", None) for function in functions if callable(function))
    yield from dict.fromkeys(code.co_filename for code in codes if code is not None and _is_users(code))


def _is_users(code: CodeType) -> bool:
    return not (is_machinery(code) or is_peft(code) or is_library(code))
