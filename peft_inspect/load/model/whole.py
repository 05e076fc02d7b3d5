"""What is asked of a model that somebody else's code built, before anything walks through it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from peft_inspect.records import InspectionError


def require_tree(model: Any, what: str) -> None:
    """Refuse what is no tree of modules with tensors of known shapes. Nothing that its class may have overridden is asked.

    Args:
        model: what the code built.
        what: how the message calls it, such as "train.py:build returned a Net".

    Raises:
        InspectionError: it holds itself, something that is no module or no tensor, or is not finished.
    """
    paths: list[str] = []  # from the model to where the walk is
    inside: list[tuple[nn.Module, Iterator[tuple[str, Any]]]] = [(model, _children(model, what, ""))]
    seen = {id(model)}
    while inside:
        following = next(inside[-1][1], None)
        if following is None:
            inside.pop()
            del paths[-1:]
            continue
        name, child = following
        path = ".".join((*paths, name))
        if not issubclass(type(child), nn.Module):
            raise InspectionError(f"{what} whose module {path!r} is a {type(child).__name__}: what is registered there has to be one")
        if any(child is outer for outer, _ in inside):
            raise InspectionError(f"{what} that holds itself, directly or in its modules: {path!r} is one of those around it")
        if id(child) not in seen:
            seen.add(id(child))
            inside.append((child, _children(child, what, path)))
            paths.append(name)


def _children(module: nn.Module, what: str, path: str) -> Iterator[tuple[str, Any]]:
    """Its registered modules, once what it registers besides is known to be in order."""
    if getattr(module, "_modules", None) is None:
        raise InspectionError(f"{what} that is not finished: the __init__ of {type(module).__name__} has not called super().__init__()")
    if type(module).__hash__ is None:
        raise InspectionError(f"{what}, and {type(module).__name__} defines __eq__ without __hash__: torch looks modules up by their hash")
    for registered in (module._parameters, module._buffers):
        for name, tensor in registered.items():
            where = f"{path}.{name}" if path else name
            if tensor is not None and not issubclass(type(tensor), torch.Tensor):
                raise InspectionError(f"{what} whose tensor {where!r} is a {type(tensor).__name__}: what is registered there has to be one")
            if tensor is not None and is_lazy(tensor):
                raise InspectionError(f"{what} where {where} is lazy and has no shape yet: run one batch through the model first")
    return iter([(name, child) for name, child in module._modules.items() if child is not None])
