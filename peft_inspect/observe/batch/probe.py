"""Asking the model itself: how many features come out of a tower decides how many placeholders go into the text."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch

from peft_inspect.observe.batch.image import Layout
from peft_inspect.observe.batch.plan import Plan


def method(plan: Plan, *names: str) -> Callable[..., Any] | None:
    """The first of these methods that a model of the target has."""
    for model in plan.target.models:
        for name in names:
            found = getattr(model, name, None) or getattr(getattr(model, "model", None), name, None)
            if found is not None:
                return found  # type: ignore[no-any-return]
    return None


def first_accepted(plan: Plan, read: Callable[..., Any], layouts: Iterable[Layout]) -> tuple[Layout, int] | str:
    """The first layout that `read` takes, with the number of features it makes of it; else why it took none."""
    why = "no layout to try"
    for layout in layouts:
        try:
            return layout, count_features(run(plan, read, layout))
        except Exception as error:  # whatever the model raises on a wrong layout: the next one is tried
            why = f"{type(error).__name__}: {error}".splitlines()[0]
    return why


def run(plan: Plan, read: Callable[..., Any], layout: Layout) -> Any:
    """Call a method of the model with those inputs it takes, without gradients."""
    accepted = inspect.signature(read).parameters
    given = {**plan.inputs, **layout}
    with torch.no_grad():
        return read(**{name: value for name, value in given.items() if name in accepted})


def count_features(output: Any) -> int:
    """Rows of features, however they are packed: tensors in lists, or an output with a pooled field."""
    pooled = getattr(output, "pooler_output", None)
    if pooled is None:
        pooled = getattr(output, "last_hidden_state", None)
    if pooled is None:
        pooled = output[0] if isinstance(output, tuple) and len(output) and not isinstance(output[0], tuple) else output
    return sum(tensor.numel() // tensor.shape[-1] for tensor in _tensors(pooled))


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    raise TypeError(f"not a tensor of features: {type(value).__name__}")
