"""The record of a batch: names, shapes and how much of it is supervised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.batch.modalities import all_modalities
from peft_inspect.records import BatchInfo

if TYPE_CHECKING:
    from peft_inspect.batch.plan import Plan

IGNORE_INDEX = -100


def describe(batch: Mapping[str, Any], accepted: Iterable[str], made_by: str, notes: Iterable[str] = ()) -> BatchInfo:
    """Describe keyword inputs; integer tensors named like labels are counted for supervision."""
    labels = [value for name, value in batch.items() if "label" in name for value in _integers(value)]
    return BatchInfo(
        inputs={name: _brief(value) for name, value in batch.items()},
        accepted=tuple(accepted),
        made_by=made_by,
        labels=sum(value.numel() for value in labels) if labels else None,
        supervised=sum(int((value != IGNORE_INDEX).sum()) for value in labels) if labels else None,
        notes=tuple(notes),
    )


def exercised(plan: Plan) -> str:
    """One line on what a made batch exercises, and on what no made batch does."""
    runs = ", ".join(f"{run.count} {run.modality} placeholders" for run in plan.placeholders)
    contents = {modality.name: modality.content for modality in all_modalities()} | {"text": "text"}
    named = {"input_ids": "text"} | {modality.argument: modality.name for modality in reversed(all_modalities())} | plan.modalities
    kinds = list(dict.fromkeys(contents[name] for argument, name in named.items() if argument in plan.inputs)) or ["its main input"]
    lacking = list(dict.fromkeys(contents[name] for argument, name in named.items() if argument in plan.receiver.parameters))
    lacking = [kind for kind in lacking if kind not in kinds]
    without = f", not {' or '.join(lacking)}" if lacking else ""
    return f"exercises {', '.join(kinds)}{f' ({runs})' if runs else ''}{without}; {plan.size} sample{'s' * (plan.size > 1)} without padding"


def _integers(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor) and not value.is_floating_point() and not value.is_complex() and value.dtype is not torch.bool:
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _integers(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _integers(item)


def _brief(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__ if isinstance(value, Mapping) else repr(value)[:40]
