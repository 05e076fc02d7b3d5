"""Integers and booleans that depend on floats, made up as real tensors.

What compares or counts is evaluated on ones, which is what a weightless value reads as. What chooses (the best
experts, the nearest code, the next token) is spread evenly over the choices, so that each of them gets used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.observe.weightless.tensor import on_ones, small_enough

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch._ops import OpOverload, OpOverloadPacket

_aten = torch.ops.aten
_CHOOSE_ALONG: dict[OpOverloadPacket, int | None] = {  # the position of `dim`, None: the last one
    _aten.topk: 2,
    _aten.sort: 1,
    _aten.argsort: 1,
    _aten.argmax: 1,
    _aten.argmin: 1,
    _aten.max: 1,
    _aten.min: 1,
    _aten.median: 1,
    _aten.nanmedian: 1,
    _aten.mode: 1,
    _aten.kthvalue: 2,
    _aten.multinomial: None,
}
_KEPT_FOR_BACKWARD = {  # nobody but the backward formula looks at these: one element stands for all
    _aten.native_dropout,
    _aten.max_pool2d_with_indices,
    _aten.max_pool3d_with_indices,
    _aten.adaptive_max_pool2d,
    _aten.adaptive_max_pool3d,
    _aten._embedding_bag,
    _aten._embedding_bag_forward_only,
    _aten.mkldnn_rnn_layer,
}


def integers(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], planned: Any) -> Any:
    """Real results of `func`; of a tuple only the integral ones mean anything.

    Args:
        func: the operation.
        args: its operands.
        kwargs: its operands by name.
        planned: results of the right shape and dtype.
    """
    packet = func.overloadpacket
    if packet in _CHOOSE_ALONG:
        return _mapped(planned, lambda result: _chosen(func, args, kwargs, result))
    if packet in _KEPT_FOR_BACKWARD or "linalg_" in str(packet):  # of linear algebra, the code of an error: none
        return _mapped(planned, lambda result: torch.zeros((), dtype=result.dtype).expand(result.shape))
    if small_enough(args, kwargs):
        return on_ones(func, args, kwargs)
    return _mapped(planned, lambda result: torch.ones(result.shape, dtype=result.dtype))


def _mapped(planned: Any, make: Any) -> Any:
    if isinstance(planned, torch.Tensor):
        return make(planned)
    return tuple(make(result) if isinstance(result, torch.Tensor) and not result.is_floating_point() else None for result in planned)


def _chosen(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor) -> torch.Tensor:
    position = _CHOOSE_ALONG[func.overloadpacket]
    scores: torch.Tensor = args[0]
    dim = _argument(func, args, kwargs, position) if position is not None else -1
    if dim is None or scores.dim() == 0:
        return torch.zeros(result.shape, dtype=result.dtype)
    return spread(result.shape, scores.shape[dim], dim, keeps_dim=result.dim() == scores.dim()).to(result.dtype)


def _argument(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], position: int) -> Any:
    schema = func._schema.arguments
    names = [argument.name for argument in schema]
    if "dim" not in names:
        return None
    position = names.index("dim")
    if position < len(args):
        return args[position]
    return kwargs.get("dim", schema[position].default_value)


def spread(shape: Sequence[int], choices: int, dim: int, *, keeps_dim: bool) -> torch.Tensor:
    """Choices of shape `shape`, distinct along `dim` and evenly spread over all of `range(choices)`.

    Args:
        shape: of the indices wanted.
        choices: how many there are to choose from.
        dim: the dimension along which they are chosen.
        keeps_dim: whether `shape` still has that dimension.
    """
    if not keeps_dim:
        return (torch.arange(_numel(shape)) % max(choices, 1)).view(tuple(shape))
    moved = list(shape)
    taken = moved.pop(dim)
    rows = torch.arange(_numel(moved)) * (taken if taken < choices else 1)
    indices = (rows[:, None] + torch.arange(taken)) % max(choices, 1)
    return indices.view(*moved, taken).movedim(-1, dim)


def _numel(shape: Sequence[int]) -> int:
    numel = 1
    for extent in shape:
        numel *= extent
    return numel
