"""Inputs nobody made: shapes from the forward's own docstring, their dimensions looked up in the config."""

from __future__ import annotations

from typing import Any

import torch

from peft_inspect.observe.batch.fields import find
from peft_inspect.observe.batch.plan import TEXT_LENGTH, Plan

_INTEGER = ("ids", "idx", "labels", "positions", "length", "shapes", "sizes", "grid", "num_", "index")


def make(plan: Plan) -> None:
    """Give what is required and still missing."""
    for name in plan.target.required:
        if plan.needs(name):
            made = _from_documentation(plan, name)
            if made is not None:
                plan.inputs[name] = made


def missing(plan: Plan) -> tuple[str, ...]:
    """Required inputs that could not be made."""
    return tuple(name for name in plan.target.required if plan.needs(name))


def _from_documentation(plan: Plan, name: str) -> Any:
    shape = plan.target.documented.get(name)
    if not shape:
        return None
    sizes = [_size(plan, part) for part in shape]
    if "mask" in name:
        return plan.ones(*sizes)
    if any(word in name for word in _INTEGER):
        return plan.zeros(*sizes)
    return plan.floats(*sizes) if torch.is_floating_point(torch.empty(0)) else None


def _size(plan: Plan, dimension: str) -> int:
    """The length of a dimension from its name in the docstring."""
    if dimension.isdigit():
        return int(dimension)
    if "batch" in dimension or dimension == "bs":
        return plan.size
    value = find(plan.config, dimension)
    if isinstance(value, int):
        return value
    return TEXT_LENGTH if "length" in dimension or "seq" in dimension else 2
