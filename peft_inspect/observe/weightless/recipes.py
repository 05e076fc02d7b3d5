"""Work out once what an operation makes of operands of given layouts.

The meta device knows most operations. Where it does not, a decomposition may, and at last the operation itself,
run on ones of the same shape while that is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.observe.weightless.invent import integers
from peft_inspect.observe.weightless.tensor import Weightless, WeightlessError, make, on_ones, small_enough

if TYPE_CHECKING:
    from torch._ops import OpOverload

Recipe = Callable[[tuple[Any, ...], dict[str, Any]], Any]
"""Makes the results of one operation from its operands."""

_META = torch.device("meta")


def recipe_for(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Recipe:
    """How to make the results of `func` for operands laid out like these.

    Raises:
        WeightlessError: there is no way to run this operation without data.
    """
    if any(_holds_integers(written) for written in _written(func, args, kwargs)):
        return lambda args, kwargs: on_ones(func, args, kwargs)
    planned = _planned(func, args, kwargs)
    returns = func._schema.returns
    if len(returns) == 1:
        single = _item(func, planned, 0, args, kwargs)
        return lambda args, kwargs: single(args, kwargs, None)
    items = [_item(func, result, i, args, kwargs) for i, result in enumerate(planned or ())]
    needs_integers = any(
        isinstance(result, torch.Tensor) and _integral(result) and returns[i].alias_info is None for i, result in enumerate(planned or ())
    )

    def recipe(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        invented = integers(func, args, kwargs, planned) if needs_integers else None
        return tuple(item(args, kwargs, invented) for item in items)

    return recipe if items else lambda args, kwargs: planned


_Item = Callable[[tuple[Any, ...], dict[str, Any], Any], Any]


def _item(func: OpOverload, result: Any, position: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Item:
    """How to make one of the results."""
    if isinstance(result, (list, tuple)):
        parts = [_item(func, part, position, args, kwargs) for part in result]
        return lambda args, kwargs, invented: [part(args, kwargs, invented) for part in parts]
    if not isinstance(result, torch.Tensor):
        return lambda args, kwargs, invented: result
    size, stride, dtype, offset = result.shape, result.stride(), result.dtype, result.storage_offset()
    source = _source_of(func, position)
    if source is not None and source.written:
        return lambda args, kwargs, invented: source.operand(args, kwargs)
    if _integral(result):
        single = len(func._schema.returns) == 1
        return lambda args, kwargs, invented: integers(func, args, kwargs, result) if single else invented[position]
    if source is None or not isinstance(source.operand(args, kwargs), Weightless):
        return lambda args, kwargs, invented: make(size, stride, dtype, offset)

    def view(args: tuple[Any, ...], kwargs: dict[str, Any], invented: Any) -> Weightless:
        made = make(size, stride, dtype, offset)
        torch._functionalize_unsafe_set(made, source.operand(args, kwargs))  # share the storage, as a view does
        return made

    return view


class _Source:
    """The operand that a result is, or looks at."""

    def __init__(self, index: int | str, written: bool) -> None:
        self.index = index
        self.written = written

    def operand(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(self.index, str):
            return kwargs[self.index]
        return args[self.index]


def _source_of(func: OpOverload, position: int) -> _Source | None:
    alias = func._schema.returns[position].alias_info
    if alias is None:
        return None
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.before_set & alias.before_set:
            return _Source(argument.name if argument.kwarg_only else i, alias.is_write)
    return None


def _written(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield kwargs.get(argument.name) if argument.kwarg_only or i >= len(args) else args[i]


def _holds_integers(operand: Any) -> bool:
    return isinstance(operand, torch.Tensor) and _integral(operand)


def _integral(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def _planned(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Results of the right layout, their values meaningless."""
    try:
        with torch._C._DisableTorchDispatch(), torch.no_grad():
            return func(*_on_meta(args), **_on_meta(kwargs))
    except Exception as error:
        decomposed = torch._decomp.decomposition_table.get(func)
        if decomposed is not None and isinstance(error, NotImplementedError):
            with torch._C._DisableTorchDispatch(), torch.no_grad():
                return decomposed(*_on_meta(args), **_on_meta(kwargs))
        if small_enough(args, kwargs):
            return on_ones(func, args, kwargs)
        if isinstance(error, NotImplementedError):
            raise WeightlessError(str(func), "it has no kernel that works on shapes alone") from error
        raise


def _on_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=_META)
    if isinstance(value, (list, tuple)):
        return [_on_meta(item) for item in value] if isinstance(value, list) else tuple(_on_meta(item) for item in value)
    if isinstance(value, dict):
        return {name: _on_meta(item) for name, item in value.items()}
    return _META if isinstance(value, torch.device) else value
