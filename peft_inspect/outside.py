"""Exceptions that no line of the code they come out of has raised: those of a signal's handler, and those another thread has set.

A time limit is one, or a scheduler that takes the machine away: they are nobody's fault, and go on their way to whoever waits for them.
"""

from __future__ import annotations

import dis
from functools import partial
from types import CodeType, MethodType, TracebackType
from typing import Any

from peft_inspect.reversible import handlers

_INTERRUPTIBLE = ("RESUME", "JUMP_BACKWARD")  # at these Python looks for what other threads have set, and they raise nothing else
_RAISING = ("RAISE_VARARGS", "RERAISE")


def from_outside(error: BaseException) -> bool:
    """Whether the handler of a signal raised it, or another thread set it.

    The first is read from the traceback, which leads through the handler. Of the second nothing is recorded: taken for one is what
    stands at an instruction that raises nothing itself, or is of a class written in Python, says nothing, and no `raise` raised it.
    """
    codes = {code for handler in handlers().values() if (code := _code(handler)) is not None}
    last: TracebackType | None = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        last, trace = trace, trace.tb_next
    name = dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] if last is not None and last.tb_lasti >= 0 else ""
    if name.startswith(_INTERRUPTIBLE):
        return True
    return bool(name) and name not in _RAISING and not error.args and type(error).__module__ != "builtins"


def _code(handler: Any) -> CodeType | None:
    """The code that Python runs for a handler."""
    if isinstance(handler, partial):
        return _code(handler.func)
    if isinstance(handler, MethodType):
        return _code(handler.__func__)
    code = getattr(handler, "__code__", None) or getattr(vars(type(handler)).get("__call__"), "__code__", None)
    return code if isinstance(code, CodeType) else None
