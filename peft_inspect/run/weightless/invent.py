"""Integers and booleans that depend on floats, made up as real tensors.

What compares or counts is evaluated on ones, which is what a weightless value reads as. What chooses (the best
experts, the nearest code, the next token) is spread evenly over the choices, so that each of them gets used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.internals import find, schema_of
from peft_inspect.run.weightless.tensor import Weightless, on_ones, reduced_to_one, small_enough, tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from peft_inspect.internals import OpOverload

_aten = torch.ops.aten
_CHOOSE = {
    _aten.topk,
    _aten.sort,
    _aten.argsort,
    _aten.argmax,
    _aten.argmin,
    _aten.max,
    _aten.min,
    _aten.median,
    _aten.nanmedian,
    _aten.mode,
    _aten.kthvalue,
    _aten.multinomial,
}
_KEPT_FOR_BACKWARD = {_aten.native_dropout, _aten.mkldnn_rnn_layer}  # nobody looks at these: one element stands for all
_POSITIONS = {  # where something was found: at the start
    _aten.max_pool2d_with_indices,
    _aten.max_pool3d_with_indices,
    _aten.adaptive_max_pool2d,
    _aten.adaptive_max_pool3d,
    *(bag.overloadpacket for name in ("_embedding_bag.default", "_embedding_bag_forward_only.default") if (bag := find(name))),
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
    if packet in _CHOOSE:
        return _mapped(planned, lambda result: _chosen(func, args, kwargs, result))
    if packet in _KEPT_FOR_BACKWARD:
        return _mapped(planned, lambda result: torch.zeros((), dtype=result.dtype).expand(result.shape))
    if packet in _POSITIONS or "linalg_" in str(packet):  # of linear algebra it is the code of an error: none
        return _mapped(planned, lambda result: torch.zeros(result.shape, dtype=result.dtype))
    weightless_alone = all(isinstance(operand, Weightless) for operand in tensors_in((args, kwargs)))
    if weightless_alone and torch.Tag.pointwise in func.tags and isinstance(planned, torch.Tensor):
        value = on_ones(func, *reduced_to_one((args, kwargs)))
        return torch.full(planned.shape, value.item(), dtype=planned.dtype)
    if small_enough(args, kwargs):
        return on_ones(func, args, kwargs)
    return _mapped(planned, lambda result: torch.ones(result.shape, dtype=result.dtype))


_MARK = "peft_inspect_made_up"


def mark(result: Any) -> Any:
    """Remember of integers and booleans that they were made up; what is computed from them inherits it."""
    for tensor in tensors_in(result):
        if not isinstance(tensor, Weightless):
            vars(tensor)[_MARK] = True
    return result


def is_made_up(value: Any) -> bool:
    """Whether this tensor, or one in this list, is made up: its values are no evidence of anything."""
    return any(_MARK in vars(tensor) for tensor in tensors_in(value))


def _mapped(planned: Any, make: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(planned, torch.Tensor):
        return make(planned)
    return tuple(make(result) if isinstance(result, torch.Tensor) and not result.is_floating_point() else None for result in planned)


def _chosen(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor) -> torch.Tensor:
    scores: torch.Tensor = args[0]
    dim = -1 if func.overloadpacket is _aten.multinomial else _dim(func, args, kwargs)
    if dim is None or scores.dim() == 0:
        return torch.zeros(result.shape, dtype=result.dtype)
    return spread(result.shape, scores.shape[dim], dim, keeps_dim=result.dim() == scores.dim()).to(result.dtype)


def _dim(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """The dimension along which is chosen; None: among all elements."""
    for position, argument in enumerate(schema_of(func).arguments):
        if argument.name == "dim":
            dim: int | None = args[position] if position < len(args) else kwargs.get("dim", argument.default_value)
            return dim
    return None


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
    return indices.view(*moved, taken).movedim(-1, dim).contiguous()


def _numel(shape: Sequence[int]) -> int:
    numel = 1
    for extent in shape:
        numel *= extent
    return numel
