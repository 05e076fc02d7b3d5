"""Asking the model itself: how many features come out of a tower decides how many placeholders go into the text."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

if TYPE_CHECKING:
    from peft_inspect.batch.image import Layout
    from peft_inspect.batch.plan import Plan
from peft_inspect.batch.rest import give_documented

_TEXT = ("input_ids", "attention_mask", "labels")


def method(plan: Plan, *names: str) -> Callable[..., Any] | None:
    """The first of these methods that a model of the target has."""
    models = (module for model in plan.target.models for module in model.modules() if isinstance(module, PreTrainedModel))
    methods = (getattr(model, name) for model in models for name in names if hasattr(model, name))
    found: Callable[..., Any] | None = next(methods, None)
    if found is not None and "input_ids" in inspect.signature(found).parameters:
        return None  # it wants the placeholders that it should count
    return found


def first_accepted(plan: Plan, read: Callable[..., Any], layouts: Iterable[Layout]) -> tuple[Layout, int] | str:
    """The first layout that `read` takes, with the number of features it makes of it; else why the first was refused."""
    refused = "no layout to try"
    for number, layout in enumerate(layouts):
        count = _counted(plan, read, layout)
        if isinstance(count, int):
            return layout, count
        refused = count if number == 0 else refused
    return refused


def _counted(plan: Plan, read: Callable[..., Any], layout: Layout) -> int | str:
    """Number of features the model makes of a layout, else why it takes it not."""
    before = dict(plan.inputs)
    lacking: list[str] = []
    for _ in range(2):  # a second time with what the first says is lacking
        try:
            return count_features(_run(plan, read, layout, lacking), text_width(plan), _projected(plan))
        except Exception as error:  # whatever the model raises on a wrong layout
            why = f"{type(error).__name__}: {error}".splitlines()[0]
        lacking = [name for name in re.findall(r"'(\w+)'", why) if "missing" in why and name not in _TEXT and give_documented(plan, name)]
        if not lacking:
            break
    plan.inputs.clear()
    plan.inputs.update(before)
    return why


def _run(plan: Plan, read: Callable[..., Any], layout: Layout, lacking: list[str]) -> Any:
    """Call a method of the model with those inputs it takes, without gradients."""
    parameters = inspect.signature(read).parameters.values()
    accepted = {parameter.name for parameter in parameters} | set(lacking)
    given = {name: value for name, value in plan.inputs.items() if name in accepted}
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    given.update((name, value) for name, value in layout.items() if open_ended or name in accepted)
    with torch.no_grad():
        return read(**given)


def text_width(plan: Plan) -> int | None:
    """Width of the embeddings that features are written over."""
    config = plan.config.get_text_config() if plan.config is not None else None
    width = getattr(config, "hidden_size", None) or getattr(config, "d_model", None)
    return width if isinstance(width, int) else None


def _projected(plan: Plan) -> set[int]:
    """Widths that a linear layer of a projector turns into that of the text: the forward projects such features itself."""
    width = text_width(plan)
    layers = ((path, layer) for path, layer in plan.target.module.named_modules() if isinstance(layer, torch.nn.Linear))
    return {layer.in_features for path, layer in layers if "projector" in path and layer.out_features == width}


def count_features(output: Any, width: int | None, projected: Container[int] = ()) -> int:
    """Tokens that the features fill, however they are packed: tensors in lists, or an output with a pooled field.

    Args:
        output: of the method that computes features.
        width: of the embeddings that they are written over.
        projected: other widths that the forward brings to that of the embeddings later.

    Raises:
        ValueError: they fill no whole number of tokens.
    """
    pooled = getattr(output, "pooler_output", None)
    if pooled is None:
        pooled = getattr(output, "last_hidden_state", None)
    if pooled is None:
        pooled = output[0] if isinstance(output, tuple) and len(output) and not isinstance(output[0], tuple) else output
    tensors = _tensors(pooled)
    if width is None or (any(tensor.shape[-1] % width for tensor in tensors) and sum(tensor.numel() for tensor in tensors) % width):
        if width is not None and tensors[0].shape[-1] not in projected:
            raise ValueError(f"features of width {tensors[0].shape[-1]} for embeddings of width {width}")
        return sum(tensor.numel() // tensor.shape[-1] for tensor in tensors)
    return sum(tensor.numel() for tensor in tensors) // width


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    raise TypeError(f"not a tensor of features: {type(value).__name__}")
