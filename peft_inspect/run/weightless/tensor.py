"""A floating tensor without storage that every line of Python takes for an ordinary one.

It has shape, strides, dtype and a normal device; what it lacks is memory. Views share the (empty) storage of what
they look at, so aliasing is as it would be. Wherever Python insists on a value, the value is one.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from peft_inspect import internals
from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import numpy as np

CPU = torch.device("cpu")
_LARGEST_READ = 1 << 24  # elements; reading more than this as values would need the memory that is being saved
_LARGEST_RUN = 1 << 22  # elements; an operation on more than this is not run on ones
_untyped_storage = torch.Tensor.untyped_storage  # as it is before a run replaces it


def _asked(tensor: torch.Tensor) -> int:
    storage: int = StorageWeakRef(_untyped_storage(tensor)).cdata  # type: ignore[no-untyped-call]
    return storage


_storage_id: Callable[[torch.Tensor], int] = internals.find("storage_id") or _asked
_is_mapped: Callable[[torch.Tensor], bool] = internals.find("is_functorch_wrapped_tensor") or (lambda _: False)
_unmapped: Callable[[torch.Tensor], torch.Tensor] | None = internals.find("get_unwrapped")
_sparse_values: Callable[[torch.Tensor], torch.Tensor] | None = internals.find("sparse_values")
_make_wrapper: Callable[..., Any] = internals.find("make_wrapper")
undispatched: Callable[[], AbstractContextManager[None]] = internals.find("DisableTorchDispatch") or nullcontext


def storage_key(tensor: torch.Tensor) -> int:
    """Identity of the storage of a tensor, weightless or not: equal for a tensor and its views, `.data`, `.t()`, detached aliases."""
    try:
        return _storage_id(tensor)
    except NotImplementedError:  # sparse tensors have none of their own, nor do the wrappers that torch.func maps functions over
        if _is_mapped(tensor) and _unmapped:
            return storage_key(_unmapped(tensor))
        if tensor.layout is torch.sparse_coo and _sparse_values:
            return _storage_id(_sparse_values(tensor))
        return id(tensor) if tensor.is_mkldnn or tensor.layout in (torch.strided, torch.sparse_coo) else _storage_id(tensor.values())


class WeightlessError(InspectionError):
    """An operation that cannot run without data. `operation` is its name; who runs the model adds the module path and what to do."""

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(
            f"{operation} cannot run without the model's weights ({reason}): use --weights random --reduce, which runs it on real numbers"
        )
        self.operation = operation


class Weightless(torch.Tensor):
    """The tensor subclass; made by `make`, `weightless_like` and `materialise`, never by hand."""

    has_values = False
    perform: ClassVar[Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]]
    """Runs one operation. Set by `execute`, which knows all that is above: a tensor knows no operation."""
    __torch_function__ = internals.find("disabled_torch_function")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Run one operation outside `running()`."""
        return cls.perform(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"weightless({tuple(self.shape)}, dtype={self.dtype}{', requires_grad=True' if self.requires_grad else ''})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 and spec else repr(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Weightless:
        if id(self) in memo:
            known: Weightless = memo[id(self)]
            return known
        copied = make(self.shape, self.stride(), self.dtype, requires_grad=self.requires_grad)
        copied.__dict__.update(self.__dict__)
        memo[id(self)] = copied
        return copied

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """An array of ones, under the conditions under which an ordinary tensor gives one."""
        values = values_of(self, "numpy()")
        return values.requires_grad_(self.requires_grad).numpy(force=force)

    def tolist(self) -> Any:
        """Nested lists of ones."""
        return values_of(self, "tolist()").tolist()


def make(
    size: Sequence[int],
    stride: Sequence[int],
    dtype: torch.dtype,
    offset: int = 0,
    *,
    device: torch.device = CPU,
    requires_grad: bool = False,
) -> Weightless:
    """A weightless tensor of exactly this layout; a leaf."""
    made: Weightless = _make_wrapper(
        Weightless, size, strides=stride, storage_offset=offset, dtype=dtype, device=device, requires_grad=requires_grad
    )
    return made


def weightless_like(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A contiguous weightless tensor: a float input (pixels, mel features) that takes no memory.

    Args:
        shape: any shape.
        dtype: a floating or complex type; the values of integers and booleans are always real.
    """
    if not _floats(dtype):
        raise TypeError(f"only floating tensors can be weightless, not {dtype}")
    made: torch.Tensor = _make_wrapper(Weightless, tuple(shape), dtype=dtype, device=CPU)
    return made


def is_weightless(value: object) -> bool:
    """Whether this is a tensor without storage."""
    return isinstance(value, Weightless)


def values_of(tensor: torch.Tensor, operation: str) -> torch.Tensor:
    """Ones in memory of their own, for operations that need real values.

    Raises:
        WeightlessError: the tensor is too large to be given values.
    """
    if tensor.numel() > _LARGEST_READ:
        raise WeightlessError(operation, f"it reads {tensor.numel():,} values")
    return torch.ones(tensor.shape, dtype=tensor.dtype)


def small_enough(*operands: Any) -> bool:
    """Whether ones in the place of these operands would cost little memory and time."""
    return sum(tensor.numel() for tensor in tensors_in(operands)) <= _LARGEST_RUN


def on_ones(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation for real, with ones in the place of every weightless operand."""
    with undispatched(), torch.no_grad():
        return func(*_as_ones(args), **_as_ones(kwargs))


def _as_ones(value: Any) -> Any:
    return mapped(value, lambda tensor: torch.ones(tensor.shape, dtype=tensor.dtype) if isinstance(tensor, Weightless) else tensor)


def reduced_to_one(value: Any) -> Any:
    """The same operands with a single element each."""
    return mapped(value, lambda tensor: make((), (), tensor.dtype))


def mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Operands with every tensor in them changed, in lists and tuples and by name as well."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(item, change) for item in value)
    if isinstance(value, dict):
        return {name: mapped(item, change) for name, item in value.items()}
    return value


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors among operands."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def _floats(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex
