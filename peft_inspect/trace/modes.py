"""Entering a mode from within a hook, and leaving it elsewhere.

Modes are a stack, and leaving one takes off whatever is on top. What is entered in the midst of a program goes below the
modes that the program has entered itself, so that these are still on top when it leaves them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import overrides
from torch._C import _len_torch_function_stack
from torch.utils import _python_dispatch as dispatch
from torch.utils._device import DeviceContext

if TYPE_CHECKING:
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def outermost(mode: TorchDispatchMode) -> Iterator[None]:
    """Operations reach `mode` after every other mode of this thread; it is left wherever it is in the stack by then."""
    above = [dispatch._pop_mode() for _ in range(dispatch._len_torch_dispatch_stack())]  # type: ignore[attr-defined]
    _put_back(dispatch._push_mode, [*above, mode])
    try:
        yield
    finally:
        above = [dispatch._pop_mode() for _ in range(dispatch._len_torch_dispatch_stack())]  # type: ignore[attr-defined]
        _put_back(dispatch._push_mode, [other for other in above if other is not mode])


@contextmanager
def outermost_function(mode: TorchFunctionMode) -> Iterator[None]:
    """The same for torch functions; a default device stays at the bottom, where torch wants it."""
    above = [overrides._pop_mode() for _ in range(_len_torch_function_stack())]  # type: ignore[no-untyped-call]
    devices = [other for other in above if isinstance(other, DeviceContext)]
    _put_back(overrides._push_mode, [*(other for other in above if other not in devices), mode, *devices])
    try:
        yield
    finally:
        above = [overrides._pop_mode() for _ in range(_len_torch_function_stack())]  # type: ignore[no-untyped-call]
        _put_back(overrides._push_mode, [other for other in above if other is not mode])


def _put_back(push: Any, innermost_first: list[Any]) -> None:
    for mode in reversed(innermost_first):
        push(mode)
