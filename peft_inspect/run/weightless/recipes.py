"""Work out once what an operation makes of operands of given layouts.

The meta device knows most operations. Where it does not, a decomposition may, and at last the operation itself,
run on ones of the same shape while that is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect import internals
from peft_inspect.internals import schema_of
from peft_inspect.run.weightless.invent import integers, mark
from peft_inspect.run.weightless.tensor import Weightless, WeightlessError, make, on_ones, small_enough, undispatched

if TYPE_CHECKING:
    from peft_inspect.internals import OpOverload

Recipe = Callable[[tuple[Any, ...], dict[str, Any]], Any]
"""Makes the results of one operation from its operands."""

_META = torch.device("meta")
_share_storage = internals.find("share_storage")
_decompositions: Mapping[Any, Callable[..., Any]] = internals.find("decomposition_table") or {}


def recipe_for(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Recipe:
    """How to make the results of `func` for operands laid out like these.

    Raises:
        WeightlessError: there is no way to run this operation without data.
    """
    if any(_is_integral(written) for written in _written(func, args, kwargs)):
        return lambda args, kwargs: mark(on_ones(func, args, kwargs))
    planned = _planned(func, args, kwargs)
    makers = [_maker(func, result, i, args, kwargs) for i, result in enumerate(_results(func, planned))]
    made_up = any(_is_integral(result) and _source_of(func, i) is None for i, result in enumerate(_results(func, planned)))
    several = len(schema_of(func).returns) != 1

    def recipe(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        invented = _results(func, mark(integers(func, args, kwargs, planned))) if made_up else ()
        if several:
            return tuple(maker(args, kwargs, invented) for maker in makers)
        return makers[0](args, kwargs, invented)

    return recipe


def _results(func: OpOverload, returned: Any) -> Sequence[Any]:
    """One per return of the schema; a single return may be a list itself."""
    return (returned,) if len(schema_of(func).returns) == 1 else returned or ()


_Maker = Callable[[tuple[Any, ...], dict[str, Any], Sequence[Any]], Any]
"""Makes one result from the operands and the integers that were made up."""


def _maker(func: OpOverload, result: Any, position: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Maker:
    if isinstance(result, (list, tuple)):
        parts = [_maker(func, part, position, args, kwargs) for part in result]
        return lambda args, kwargs, invented: [part(args, kwargs, invented) for part in parts]
    if not isinstance(result, torch.Tensor):
        return lambda _args, _kwargs, _invented: result
    source = _source_of(func, position)
    if source is not None and source.written:
        return lambda args, kwargs, _invented: source.operand(args, kwargs)
    if _is_integral(result) and source is None:
        return lambda _args, _kwargs, invented: invented[position]
    layout = (result.shape, result.stride(), result.dtype, int(result.storage_offset()))
    if _is_integral(result):  # floats looked at as the integers of their bits
        return lambda _args, _kwargs, _invented: torch.ones(layout[0], dtype=layout[2])
    if source is None or not isinstance(source.operand(args, kwargs), Weightless):
        return lambda _args, _kwargs, _invented: make(*layout)

    def view(args: tuple[Any, ...], kwargs: dict[str, Any], _invented: Sequence[Any]) -> Weightless:
        made = make(*layout)
        _share_storage(made, source.operand(args, kwargs))  # share the storage, as a view does
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
    alias = schema_of(func).returns[position].alias_info
    if alias is None:
        return None
    for i, argument in enumerate(schema_of(func).arguments):
        own = argument.alias_info
        if own is not None and (own.before_set & alias.before_set or "*" in own.after_set):  # "*": it goes into a list of views
            return _Source(argument.name if argument.kwarg_only else i, alias.is_write)
    return None


def _written(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    for i, argument in enumerate(schema_of(func).arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield kwargs.get(argument.name) if argument.kwarg_only or i >= len(args) else args[i]


def _is_integral(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not (value.is_floating_point() or value.is_complex())


def _planned(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Results of the right layout, their values meaningless."""
    try:
        with undispatched(), torch.no_grad():
            return func(*_on_meta(args), **_on_meta(kwargs))
    except Exception as error:
        decomposed = _decompositions.get(func)
        if decomposed is not None and isinstance(error, NotImplementedError):
            with undispatched(), torch.no_grad():
                return decomposed(*_on_meta(args), **_on_meta(kwargs))
        if small_enough(args, kwargs):
            return on_ones(func, args, kwargs)
        if isinstance(error, NotImplementedError):
            raise WeightlessError(str(func), "it has no kernel that works on shapes alone") from error
        raise


def _on_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        plain = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=_META)
        offset = value.storage_offset()
        if not offset:
            return plain
        extent = plain.untyped_storage().nbytes() // plain.itemsize
        return torch.empty(offset + extent, dtype=value.dtype, device=_META).as_strided(value.shape, value.stride(), offset)
    if isinstance(value, (list, tuple)):
        return type(value)(_on_meta(item) for item in value)
    if isinstance(value, dict):
        return {name: _on_meta(item) for name, item in value.items()}
    return _META if isinstance(value, torch.device) else value
