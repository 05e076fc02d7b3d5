"""Walks over the modules of a model, asked for several times an inspection: a list, where torch has a generator inside each generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Every module once, in the order of `model.modules()`."""
    found: dict[int, nn.Module] = {}
    pending = [model]
    while pending:
        module = pending.pop()
        if id(module) in found:
            continue
        found[id(module)] = module
        if module._modules:
            pending += [child for child in reversed(list(module._modules.values())) if child is not None]
    return list(found.values())


def parameters_of(model: nn.Module) -> Iterator[nn.Parameter]:
    """Every parameter that a module registers; a shared one under each of them."""
    for module in modules_of(model):
        for parameter in module._parameters.values():
            if parameter is not None:
                yield parameter


def defined_in(kind: type) -> str:
    """The dotted name of the module that a class says it is defined in; code may have put anything there."""
    name = getattr(kind, "__module__", None)
    return name if isinstance(name, str) else ""
