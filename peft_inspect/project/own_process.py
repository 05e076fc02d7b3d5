"""A process of its own for what is inspected, also when it is the only thing.

What runs there may end its process, close its streams or replace what Python is made of: the report is written where none of that
happened.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TypeVar

from peft_inspect.records import InspectionError, text_of

T = TypeVar("T")
_leave = os._exit  # as it is before anybody replaces it
_INTERRUPT = getattr(signal, "SIGRTMIN", signal.SIGTERM)  # the terminal sends none: Ctrl-C is answered in one process alone
_TIDYING = 3  # seconds


def in_own_process(what: str, run: Callable[[], T], *, debug: bool) -> T:
    """What `run` returns, from a process forked for it; from this one where it cannot be forked safely.

    Args:
        what: is inspected, for the message.
        run: does it.
        debug: show where in the other process an error was raised.

    Raises:
        InspectionError: its own, or its process ended before there was an answer.
    """
    if not may_fork():
        return run()
    from multiprocessing.connection import Connection

    answer = os.memfd_create("answer")  # pages of memory: no pipe, which what is inspected could fill or keep open
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    with deaf_to_interrupts():
        parent, child = os.getpid(), os.fork()
        if child == 0:
            _answer(f"/proc/{parent}/fd/{answer}", what, run)
    try:
        _, status = os.waitpid(child, 0)
    except BaseException:
        _interrupt(child)
        raise
    os.lseek(answer, 0, os.SEEK_SET)
    with Connection(answer, writable=False) as file:
        try:
            result, trace = file.recv()
        except EOFError:
            raise InspectionError(ended(what, os.waitstatus_to_exitcode(status))) from None
    if isinstance(result, BaseException):
        raise result from (InsideError(trace) if debug else None)
    returned: T = result
    return returned


class InsideError(Exception):
    """The traceback of the other process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def may_fork() -> bool:
    """Whether a copy of this process is as good as the original: one that has loaded torch has threads that a copy is without."""
    return sys.platform == "linux" and "torch" not in sys.modules and threading.active_count() == 1


def ended(what: str, code: int) -> str:
    """What is said of a process that ended without an answer."""
    how = f"exit code {code}"
    if code < 0:
        name = signal.Signals(-code).name
        how = f"{name}: the machine may be out of memory" if name == "SIGKILL" else name
    return f"{what} ended its process before it was inspected ({how})"


def result_of(what: str, run: Callable[[], T]) -> tuple[T | BaseException, str]:
    """What it returned or raised, as what can be sent, and the traceback."""
    try:
        return run(), ""
    except InspectionError as error:
        return error, traceback.format_exc()
    except (KeyboardInterrupt, Exception) as error:
        if interrupted(error):
            return KeyboardInterrupt(), ""
        return InspectionError(f"internal error: {text_of(error)}. --debug shows where; please report it"), traceback.format_exc()
    except BaseException as error:
        return InspectionError(f"{what} ended with {text_of(error)} before it could be inspected"), traceback.format_exc()


def interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind it: a library that is being imported may turn it into an error of its own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def leave() -> NoReturn:
    """End the process of what was inspected once its answer is given: not waiting for threads of it that never end."""
    try:
        with suppress(BaseException):  # of what was inspected
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(BaseException):
                stream.flush()
    finally:
        _leave(0)


def _interrupt(child: int) -> None:
    """Let it tidy up, for a few seconds."""
    process = os.pidfd_open(child)
    try:
        os.kill(child, _INTERRUPT)
        select.select([process], [], [], _TIDYING)
    finally:
        os.close(process)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """What is started here ignores Ctrl-C, which reaches every process of the terminal: this one answers it, and ends the others."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _answer(file: str, what: str, run: Callable[[], object]) -> NoReturn:
    """In the forked process: write what came of it into the memory of the parent, whatever became of the descriptors here."""
    from multiprocessing.connection import Connection

    try:
        signal.signal(_INTERRUPT, _raise_interrupt)
        _end_with_parent()
        os.dup2(2, 1)  # stdout is the report's, which is not written here: nothing that runs here can reach it
        sys.stdout = sys.stderr
        result = result_of(what, run)
        with Connection(os.open(file, os.O_WRONLY), readable=False) as out:
            out.send(result)
        leave()
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(1)


def _end_with_parent() -> None:
    """A command that was killed leaves no inspection running."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
