"""Indices are real, so one that is out of range is the error that it would be with weights; unless it was made up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.run.weightless.invent import is_made_up

if TYPE_CHECKING:
    from peft_inspect.internals import OpOverload


def of_embedding(_func: OpOverload, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
    """Token ids against the size of the vocabulary."""
    weight, ids = args[:2]
    if _outside(ids, 0, weight.shape[0]):
        raise IndexError(f"index out of range in self: {_span(ids)} for {weight.shape[0]:,} embeddings")
    return NotImplemented


def of_choice(_func: OpOverload, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
    """`index_select` and `gather`: what is chosen against what there is."""
    values, dim, index = args[:3]
    size = values.shape[dim] if values.dim() else 1
    if _outside(index, 0, size):
        raise IndexError(f"index out of range in self: {_span(index)} for a dimension of {size:,}")
    return NotImplemented


def of_classes(_func: OpOverload, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
    """The labels of a cross-entropy against its classes."""
    scores, target, ignored = args[0], args[1], args[4]
    classes = scores.shape[0 if scores.dim() == 1 else 1]
    labels = target[target != ignored]
    if _outside(labels, 0, classes):
        raise IndexError(f"Target {_span(labels)} is out of bounds for {classes:,} classes")
    return NotImplemented


def check_positions(values: torch.Tensor, indices: list[torch.Tensor | None]) -> None:
    """`values[indices]`: counted from either end.

    Raises:
        IndexError: there is no such position.
    """
    for dim, index in enumerate(indices):
        if index is not None and _outside(index, -values.shape[dim], values.shape[dim]):
            raise IndexError(f"index {_span(index)} is out of bounds for dimension {dim} with size {values.shape[dim]}")


def check_written(values: torch.Tensor, indices: list[torch.Tensor | None], written: torch.Tensor) -> None:
    """`values[indices] = written`: the shapes have to fit.

    Raises:
        RuntimeError: they do not.
    """
    on_meta = [None if index is None else index.to("meta") for index in indices]
    room = torch.ops.aten.index.Tensor(torch.empty(values.shape, device="meta"), on_meta).shape
    if len(written.shape) > len(room) or any(
        extent not in (1, of_room) for extent, of_room in zip(reversed(written.shape), reversed(room), strict=False)
    ):
        raise RuntimeError(
            f"shape mismatch: value tensor of shape {list(written.shape)} cannot be broadcast to indexing result of shape {list(room)}"
        )


def _outside(index: torch.Tensor, first: int, end: int) -> bool:
    if not index.numel() or is_made_up(index):
        return False
    least, most = torch.aminmax(index)
    return bool(least < first) or bool(most >= end)


def _span(index: torch.Tensor) -> str:
    least, most = (int(extreme) for extreme in torch.aminmax(index))
    return f"{least}" if least == most else f"{least} to {most}"
