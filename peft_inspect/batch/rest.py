"""Inputs nobody made: shapes from the forward's own docstring, their dimensions looked up in the config."""

from __future__ import annotations

import math
import re

from peft_inspect.batch import bare
from peft_inspect.batch.fields import find
from peft_inspect.batch.image import image_size
from peft_inspect.batch.plan import TEXT_LENGTH, Plan

_INTEGER = ("ids", "idx", "labels", "positions", "length", "shapes", "sizes", "grid", "num_", "index")
_SPELLINGS = {"num_features": ("num_features", "num_time_features"), "num_codebooks": ("num_codebooks", "num_channels", "num_quantizers")}
_SIDES = {"height", "width", "image_size", "image_height", "image_width"}
_DECODER = re.compile("decoder")
_OPTIONAL = re.compile(r"past|cache|embeds|label|position_ids|output|head_mask|encoder_")  # what a model makes itself, or may do without


def make(plan: Plan) -> None:
    """Give what is required and still missing."""
    for name in plan.target.required:
        if plan.needs(name) and not give_documented(plan, name):
            bare.give(plan, name)
    if "past_values" in plan.inputs:  # what a decoder is trained to continue
        give_documented(plan, "future_values")
        give_documented(plan, "future_time_features")
    if not plan.inputs:
        for name in plan.target.documented:
            if is_input(name):
                give_documented(plan, name)


def is_input(name: str) -> bool:
    """Whether an optional input brings content, rather than what a model makes itself or may do without."""
    return not _OPTIONAL.search(name)


def missing(plan: Plan) -> tuple[str, ...]:
    """Required inputs that could not be made."""
    return tuple(name for name in plan.target.required if plan.needs(name))


def give_documented(plan: Plan, name: str) -> bool:
    """Give an input as its docstring describes it; False where it describes no shape."""
    shape = plan.target.documented.get(name)
    if not shape or not plan.wants(name):
        return False
    kind = plan.target.documented_type.get(name, "")
    sizes = [_size(plan, part, name) for part in shape]
    if len(shape) > 2 and set(shape[-2:]) <= _SIDES:
        sizes[-2:] = image_size(plan)
    if "mask" in name:  # one over an image is painted, in floats
        made = plan.ones(*sizes) if len(shape) < 4 or "Tensor" not in kind or "Long" in kind or "Bool" in kind else plan.floats(*sizes)
    elif "Bool" in kind and "values" not in name:
        made = plan.zeros(*sizes).bool()
    elif "Long" in kind or "Int" in kind or ("Float" not in kind and any(word in name for word in _INTEGER) and not _is_curve(name, shape)):
        made = plan.zeros(*sizes)
    else:
        made = plan.floats(*sizes)
    plan.give(name, made)
    return True


def _is_curve(name: str, shape: tuple[str, ...]) -> bool:
    """Whether labels are values over time rather than classes."""
    return "labels" in name and len(shape) == 3 and "length" in shape[1]


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
