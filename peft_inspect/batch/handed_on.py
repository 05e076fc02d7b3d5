"""Inputs that a forward takes without naming them: `**kwargs` that it hands to a tower that does."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping

import torch

_DEPTH = 4  # forwards between the model and the tower


def handed_on(module: torch.nn.Module, depth: int = _DEPTH) -> Mapping[str, inspect.Parameter]:
    """Parameters of the forwards of its children that the forward of `module` passes its own `**kwargs` to, by name."""
    found: dict[str, inspect.Parameter] = {}
    for child in _children(module) if depth else ():
        taken = inspect.signature(child.forward).parameters.values()
        found |= {parameter.name: parameter for parameter in taken if parameter.kind is not inspect.Parameter.VAR_KEYWORD}
        found |= handed_on(child, depth - 1)
    return found


def _children(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Modules that the forward calls as `self.name(..., **kwargs)`."""
    own = next((p.name for p in inspect.signature(module.forward).parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD), None)
    try:
        code = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(type(module).forward))))
    except (OSError, TypeError, SyntaxError):  # code without a file
        return
    for node in ast.walk(code):
        if isinstance(node, ast.Call) and any(
            keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id == own for keyword in node.keywords
        ):
            called = node.func
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "self":
                child = getattr(module, called.attr, None)
                if isinstance(child, torch.nn.Module):
                    yield child
