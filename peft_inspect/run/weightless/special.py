"""Operations whose result is not decided by the layout of their operands alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.internals import find
from peft_inspect.run.weightless import ranges
from peft_inspect.run.weightless.tensor import Weightless, make

if TYPE_CHECKING:
    from peft_inspect.internals import OpOverload

Special = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""Gives the results, or NotImplemented where the ordinary way will do."""

_aten = torch.ops.aten
_FLASH, _MATH = 1, 0  # torch.nn.attention.SDPBackend


def _number(_func: OpOverload, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
    return 1.0 if args[0].is_floating_point() else 1.0 + 0.0j


def _same_values(_func: OpOverload, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> bool:
    left, right = args[:2]
    return bool(left.shape == right.shape)


def _nothing(_func: OpOverload, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    """Assertions about values hold."""


def _with_index_lists(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A boolean mask is as many positions as it has true values; the layout of the result depends on them."""
    indexed, indices = args[:2]
    if not any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices):
        ranges.check_positions(indexed, indices)
        return NotImplemented
    positions: list[torch.Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            covered = indexed.shape[len(positions) :][: index.dim()]
            if index.shape != covered:
                at = f"index {len(positions)}"
                raise IndexError(
                    f"the shape of the mask {list(index.shape)} at {at} does not match the indexed tensor's {list(indexed.shape)}"
                )
            positions.extend(index.nonzero().unbind(1))
        else:
            positions.append(index)
    return Weightless.perform(func, (indexed, positions, *args[2:]), kwargs)


def _written_at(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As many values as there are positions; placeholders that are too few for their features are an error."""
    indexed, indices, values = args[:3]
    if values.numel() > 1 and not any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices):
        ranges.check_written(indexed, indices, values)
    return _with_index_lists(func, args, kwargs)


def _masked_select(_func: OpOverload, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Weightless:
    values, mask = args[:2]
    chosen = mask.expand(torch.broadcast_shapes(values.shape, mask.shape)).sum()  # type: ignore[no-untyped-call]
    return make((int(chosen),), (1,), values.dtype)


def _attention_kernel(_func: OpOverload, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> int:
    """The kernel that a CPU would choose; the fused one has no gradient for a mask and no dropout."""
    query, key, value, mask, dropout = (*args, None, 0.0)[:5] if len(args) < 5 else args[:5]
    fused = (
        query.dim() == key.dim() == value.dim() == 4
        and query.shape[-1] == key.shape[-1] == value.shape[-1]
        and query.shape[1] == key.shape[1] == value.shape[1]
        and query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
        and not dropout
        and (mask is None or not mask.requires_grad)
    )
    return _FLASH if fused else _MATH


def _grouped_product(_func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Weightless:
    """The meta kernel takes bfloat16 with aligned rows alone; a CPU's takes every floating type and layout."""
    left, right = args[:2]
    if left.shape[-1] != right.shape[-2]:
        raise RuntimeError(f"contraction dimension of mat_a and mat_b must match, got {list(left.shape)} and {list(right.shape)}")
    rows, columns = left.shape[-2], right.shape[-1]
    if left.dim() == right.dim() == 2:  # the groups divide the contraction
        size = (kwargs["offs"] if "offs" in kwargs else args[2]).shape[0], rows, columns
    else:
        size = (*left.shape[:-2], rows, columns) if left.dim() == right.dim() else (rows, columns)
    strides = (rows * columns, columns, 1)[-len(size) :]
    return make(size, strides, kwargs.get("out_dtype") or left.dtype)


def _encoder_layer(_func: OpOverload, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Weightless:
    """The fused path of `nn.TransformerEncoderLayer` in eval: as its input."""
    return make(args[0].shape, args[0].contiguous().stride(), args[0].dtype)


_PRIVATE: dict[str, Special] = {
    "_local_scalar_dense.default": _number,
    "_assert_async.default": _nothing,
    "_assert_async.msg": _nothing,
    "_unsafe_index.Tensor": _with_index_lists,
    "_index_put_impl_.default": _written_at,
    "_unsafe_index_put.default": _written_at,
    "_embedding_bag.default": ranges.of_embedding,
    "_embedding_bag_forward_only.default": ranges.of_embedding,
    "_fused_sdp_choice.default": _attention_kernel,
    "_grouped_mm.default": _grouped_product,
    "_transformer_encoder_layer_fwd.default": _encoder_layer,
}
SPECIAL: dict[Any, Special] = {
    _aten.equal.default: _same_values,
    _aten.allclose.default: _same_values,
    _aten.index.Tensor: _with_index_lists,
    _aten.index_put.default: _written_at,
    _aten.index_put_.default: _written_at,
    _aten.embedding.default: ranges.of_embedding,
    _aten.index_select.default: ranges.of_choice,
    _aten.gather.default: ranges.of_choice,
    _aten.nll_loss_forward.default: ranges.of_classes,
    _aten.nll_loss2d_forward.default: ranges.of_classes,
    _aten.masked_select.default: _masked_select,
    **{operation: special for name, special in _PRIVATE.items() if (operation := find(name)) is not None},
}
"""By operation, what has to look at more than layouts."""
