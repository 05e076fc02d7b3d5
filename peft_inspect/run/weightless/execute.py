"""Run one operation on weightless operands: look up, or work out once, what its results look like.

A network repeats its layers, and so its operations with the same shapes. What an operation makes of operands of
given layouts is worked out once on the meta device and kept as a `Recipe`; after that an operation costs a look-up.
"""

from __future__ import annotations

import contextlib
import math
import sys
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect import internals
from peft_inspect.internals import OpOverload, TorchDispatchMode, schema_of
from peft_inspect.reversible import uncollected
from peft_inspect.run.weightless.invent import is_made_up, mark
from peft_inspect.run.weightless.recipes import Recipe, recipe_for
from peft_inspect.run.weightless.special import SPECIAL
from peft_inspect.run.weightless.tensor import CPU, Weightless, WeightlessError, make

if TYPE_CHECKING:
    from collections.abc import Iterator

_aten = torch.ops.aten
_has_kernel = internals.find("has_kernel")
_MAKE_FLOATS = {  # factories whose first argument is a size; DoRA multiplies with an identity as wide as the layer
    _aten.eye.default,
    _aten.eye.m,
    _aten.zeros.default,
    _aten.ones.default,
    _aten.full.default,
    _aten.empty.memory_format,
    _aten.empty_strided.default,
    _aten.rand.default,
    _aten.rand.generator,
    _aten.randn.default,
    _aten.randn.generator,
}
_DRAW = {_aten.rand.default, _aten.rand.generator}
_SMALL = 1 << 16  # elements; smaller float constants stay real, because code decides by them


class _Operation:
    """What is known of an operation before its operands are."""

    __slots__ = ("composite", "recipes", "special", "views")

    def __init__(self, func: OpOverload) -> None:
        schema = schema_of(func)
        self.special = SPECIAL.get(func)
        self.composite = _has_kernel is not None and _has_kernel(func.name(), "CompositeImplicitAutograd")  # type: ignore[no-untyped-call]
        self.views = any(result.alias_info is not None and not result.alias_info.is_write for result in schema.returns)
        if self.special is None and torch.Tag.inplace_view in func.tags:
            self.special = _change_in_place
        self.recipes: dict[tuple[Any, ...], Recipe] = {}


_operations: dict[OpOverload, _Operation] = {}


def execute(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The results of `func` on operands of which at least one is weightless.

    Floating results are weightless; integers and booleans are real, and made up where they depend on floats.
    What is written in place, or through `out=`, is the operand that went in.

    Raises:
        WeightlessError: the operation needs values that there are not.
    """
    operation = _operations.get(func)
    if operation is None:
        operation = _operations[func] = _operation(func)
    if operation.special is not None:
        result = operation.special(func, args, kwargs)
        if result is not NotImplemented:
            return result
    elif operation.composite:
        return func.decompose(*args, **kwargs)
    key: list[Any] = []
    for value in args:
        _describe(value, key, operation.views)
    if kwargs:
        for name, value in kwargs.items():
            key.append(name)
            _describe(value, key, operation.views)
    try:
        recipe = operation.recipes.get(described := tuple(key))
    except TypeError:  # an argument without a hash, such as a random generator
        return recipe_for(func, args, kwargs)(args, kwargs)
    if recipe is None:
        recipe = operation.recipes[described] = recipe_for(func, args, kwargs)
    return recipe(args, kwargs)


Weightless.perform = staticmethod(execute)


def _operation(func: Any) -> _Operation:
    if not isinstance(func, OpOverload):
        raise WeightlessError(str(func), "a higher-order operation")
    return _Operation(func)


def _describe(value: Any, key: list[Any], with_offset: bool) -> None:
    """Append everything about an operand that its operation's results can depend on, short of values."""
    kind = type(value)
    if isinstance(value, torch.Tensor):
        key.append(value.shape)
        key.append(value.stride())
        key.append(value.dtype)
        if with_offset:
            key.append(value.storage_offset())
    elif kind is list or kind is tuple:
        key.append(len(value))
        for item in value:
            _describe(item, key, with_offset)
    else:  # with its type, because True == 1 == 1.0
        key.append(kind)
        key.append(value)


def _change_in_place(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`squeeze_`, `t_`, `resize_` …: the operand itself gets another shape, by the meta kernel."""
    if not isinstance(args[0], Weightless):
        return NotImplemented
    include_meta = internals.require("include_meta")
    with internals.require("no_dispatch")():
        before = internals.require("is_meta_included")()
        include_meta(True)
        try:
            func(*args, **kwargs)
        finally:
            include_meta(before)
    return args[0]


class _WeightlessMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees the operations whose operands hide the subclass, factories of large floating tensors, and single draws."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled in here; saying so twice per operation would import and ask the compiler each time."""
        return False

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if _touches_weightless(args) or (kwargs and _touches_weightless(kwargs.values())):
            return execute(func, args, kwargs)
        if func in _MAKE_FLOATS and (made := _stand_in(func, args, kwargs)) is not None:
            return made
        result = func(*args, **kwargs)
        return mark(result) if is_made_up(args) else result


def _touches_weightless(values: Any) -> bool:
    for value in values:
        kind = type(value)
        if kind is Weightless or ((kind is list or kind is tuple) and _touches_weightless(value)):
            return True
    return False


def _stand_in(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """What to use for a large floating tensor that is about to be allocated, and for a single draw.

    A draw is one, as is every value that nobody knows: no layer is left out at random.
    """
    numel = args[0] * args[-1] if isinstance(args[0], int) else math.prod(args[0])
    if numel == 1 and func in _DRAW:
        return torch.ones(args[0], dtype=kwargs.get("dtype"))
    if numel <= _SMALL or ((device := kwargs.get("device")) is not None and torch.device(device).type != "cpu"):
        return None
    planned = func(*args, **{**kwargs, "device": torch.device("meta"), "pin_memory": None})
    if not (planned.is_floating_point() or planned.is_complex()):
        return None
    return make(planned.shape, planned.stride(), planned.dtype, device=CPU)


@contextlib.contextmanager
def running() -> Iterator[None]:
    """What must be active during forward and backward of a weightless model."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(uncollected())  # there is no memory of tensors to be had back
        if "torch._dynamo" in sys.modules:  # there is nothing to compile kernels for
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_WeightlessMode())  # type: ignore[no-untyped-call]
        yield
