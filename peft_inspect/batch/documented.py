"""Inputs as the forward's own docstring describes them, their dimensions looked up in the config by name."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from peft_inspect.batch.fields import find
from peft_inspect.batch.plan import TEXT_LENGTH, Plan

if TYPE_CHECKING:
    import torch

_INTEGER = ("ids", "idx", "labels", "positions", "length", "shapes", "sizes", "grid", "num_", "index")
_SPELLINGS = {"num_features": ("num_features", "num_time_features"), "num_codebooks": ("num_codebooks", "num_channels", "num_quantizers")}
_SIDES = {"height", "width", "image_size", "image_height", "image_width"}
_DECODER = re.compile("decoder")


def documented(plan: Plan, name: str) -> torch.Tensor | None:
    """A tensor of the documented shape and type; None where no shape is documented."""
    shape = plan.receiver.documented.get(name)
    if not shape:
        return None
    kind = plan.receiver.documented_type.get(name, "")
    sizes = [_size(plan, part, name) for part in shape]
    if len(shape) > 2 and set(shape[-2:]) <= _SIDES:
        sizes[-2:] = plan.image_size
    if "mask" in name:  # one over an image is painted, in floats
        painted = len(shape) > 3 and "Tensor" in kind and "Long" not in kind and "Bool" not in kind
        return plan.floats(*sizes) if painted else plan.ones(*sizes)
    if "Bool" in kind and "values" not in name:
        return plan.zeros(*sizes).bool()
    curve = "labels" in name and len(shape) == 3 and "length" in shape[1]  # values over time rather than classes
    if "Long" in kind or "Int" in kind or ("Float" not in kind and any(word in name for word in _INTEGER) and not curve):
        return plan.zeros(*sizes)
    return plan.floats(*sizes)


def give_documented(plan: Plan, name: str) -> bool:
    """Give an input as it is documented; False where that is not known or the forward does not want it."""
    made = documented(plan, name) if plan.wants(name) else None
    if made is not None:
        plan.give(name, made)
    return made is not None


def _size(plan: Plan, dimension: str, of: str) -> int:
    """The length of a dimension of the input `of`, from its name in the docstring."""
    if "*" in dimension:
        return math.prod(_size(plan, part.strip(), of) for part in dimension.split("*") if part.strip())
    if of.startswith("past_") and "length" in dimension and isinstance(context := find(plan.config, "context_length"), int):
        lags: list[int] = find(plan.config, "lags_sequence") or [0]
        return context + max(lags)
    if dimension.isdigit():
        return int(dimension)
    if "batch" in dimension or dimension == "bs":
        return plan.size
    if dimension in ("sequence_length", "seq_length", "seq_len") and "input_ids" in plan.inputs:
        return int(plan.inputs["input_ids"].shape[-1])
    dimension = dimension.removeprefix("config.")
    within = _DECODER if of.startswith("decoder_") else None
    value = find(plan.config, *_SPELLINGS.get(dimension, (dimension,)), within=within)
    if isinstance(value, int):
        return value
    return TEXT_LENGTH if "length" in dimension or "seq" in dimension else 2
