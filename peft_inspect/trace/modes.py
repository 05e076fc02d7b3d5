"""Entering a mode from within a hook, and leaving it elsewhere.

Modes are a stack, and leaving one takes off whatever is on top. What is entered in the midst of a program goes below the
modes that the program has entered itself, so that these are still on top when it leaves them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft_inspect.internals import require
from peft_inspect.reversible import Reversible

if TYPE_CHECKING:
    from torch.overrides import TorchFunctionMode

    from peft_inspect.internals import TorchDispatchMode


class Outermost(Reversible[None]):
    """A mode that what runs inside reaches after every other one of this thread; it is left wherever it is in the stack by then."""

    def __init__(self, mode: TorchDispatchMode | TorchFunctionMode, kind: str) -> None:
        self._mode = mode
        self._push, self._pop, self._depth = require(f"push_{kind}_mode"), require(f"pop_{kind}_mode"), require(f"{kind}_modes")

    def set_up(self) -> None:
        """Put it at the bottom; a default device stays below, where torch wants it."""
        above = self._taken_off()
        devices = [other for other in above if isinstance(other, require("DeviceContext"))]
        self._put_on([*(other for other in above if other not in devices), self._mode, *devices])

    def put_back(self) -> None:
        """Take it out of the stack."""
        self._put_on([other for other in self._taken_off() if other is not self._mode])

    def _taken_off(self) -> list[Any]:
        return [self._pop() for _ in range(self._depth())]

    def _put_on(self, innermost_first: list[Any]) -> None:
        for mode in reversed(innermost_first):
            self._push(mode)


def outermost(mode: TorchDispatchMode) -> Outermost:
    """The same as `with mode:` for a mode that sees operations."""
    return Outermost(mode, "dispatch")


def outermost_function(mode: TorchFunctionMode) -> Outermost:
    """The same as `with mode:` for a mode that sees torch functions."""
    return Outermost(mode, "function")
