"""Contexts that no interrupt cuts in two: whatever is raised at whatever moment, all that was set up is put back first.

Two things raise between any two instructions: the handlers of signals, which Python runs in the main thread (Ctrl-C), and
exceptions that another thread sets for this one (`PyThreadState_SetAsyncExc`). Signals are held back while something is set up
or put back, and raised again afterwards. An exception of another thread cannot be held back; what puts back is therefore such
that it can run again, and it does, before the exception goes on its way.

A context can also be missed: an exception that is raised on the first instruction of `__exit__` keeps it from doing anything. So
every open context stands in a list of its thread, and one that is left puts back those inside it as well; `put_back_after`, at the
outermost end, has an end of its own for each exit.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # what `signal` wraps in enums, each of which costs a look-up
import gc
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_ATTEMPTS = 10  # that putting back may be interrupted; an error of its own comes again each time
_MISSING: Any = object()


class Reversible(ABC, Generic[T]):
    """A context manager that sets something up and puts it back, both without an interrupt in between."""

    _opened: list[Reversible[Any]] | None = None

    @abstractmethod
    def set_up(self) -> T:
        """Do it; what the `with` statement gives. Whatever it raises, `put_back` runs."""

    @abstractmethod
    def put_back(self) -> None:
        """Undo it, also where it was done in part or not at all; it may run more than once."""

    def __enter__(self) -> T:
        self._opened = opened = _contexts()
        opened.append(self)
        try:
            return _undivided(self.set_up)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self._opened is not None and self in self._opened:
            _put_back(self._opened, self._opened.index(self))


class patched(Reversible[None]):  # noqa: N801 - reads as what it does
    """Attributes replaced inside, each by what is made of what stood there, as its owner stores it (a `classmethod` is one still).

    Args:
        replacements: the owner, the name of its attribute, and what makes the replacement.
    """

    def __init__(self, *replacements: tuple[Any, str, Callable[[Any], Any]]) -> None:
        self._replacements = replacements
        self._originals: list[tuple[Any, str, Any]] = []

    def set_up(self) -> None:
        """Raises AttributeError where an owner neither has nor inherits such an attribute."""
        self._originals += [(owner, name, vars(owner).get(name, _MISSING)) for owner, name, _ in self._replacements]
        for (owner, name, make), (*_, own) in zip(self._replacements, self._originals, strict=True):
            setattr(owner, name, make(getattr(owner, name) if own is _MISSING else own))

    def put_back(self) -> None:
        """What was inherited is inherited again."""
        for owner, name, original in reversed(self._originals):
            if original is not _MISSING:
                setattr(owner, name, original)
            elif name in vars(owner):
                delattr(owner, name)


class hooked(Reversible[None]):  # noqa: N801
    """Hooks that are there inside: each of `registrations` registers one and returns its handle."""

    def __init__(self, *registrations: Callable[[], Any]) -> None:
        self._registrations = registrations
        self._handles: list[Any] = []

    def set_up(self) -> None:
        """Register them, in this order."""
        for register in self._registrations:
            self._handles.append(register())

    def put_back(self) -> None:
        """Remove them; a handle does so once."""
        for handle in self._handles:
            handle.remove()


class uncollected(Reversible[None]):  # noqa: N801
    """No garbage collection inside: many small records are made that all stay, and to walk them again and again costs more than they do."""

    def __init__(self) -> None:
        self._was_on = gc.isenabled()

    def set_up(self) -> None:
        """Off, for all threads."""
        gc.disable()

    def put_back(self) -> None:
        """On again, if it was."""
        if self._was_on:
            gc.enable()


class Apart:
    """Contexts that are begun in one place of a program and ended in another: none that is left in between ends them."""

    def __init__(self) -> None:
        self._begun: list[Reversible[Any]] = []

    def begin(self, *contexts: Reversible[Any]) -> None:
        """Set them up, in this order."""
        for context in contexts:
            self._begun.append(context)
            _undivided(context.set_up)

    def end(self) -> None:
        """Put them back, the last one first; what comes in between is raised afterwards."""
        came: list[BaseException] = []
        while self._begun:
            came += _raised_by(partial(_undivided, self._begun[-1].put_back), attempts=_ATTEMPTS)
            self._begun.pop()
        if came:
            raise came[0]


def put_back_after(run: Callable[[], T]) -> T:
    """What `run` returns. Contexts that an interrupt kept it from leaving are left before anything goes on."""
    opened = _contexts()
    depth = len(opened)
    try:
        try:
            return run()
        finally:
            _put_back(opened, depth)
    finally:
        _put_back(opened, depth)


_of_thread = threading.local()


def _contexts() -> list[Reversible[Any]]:
    """The contexts that are open in this thread, from the outside in."""
    opened: list[Reversible[Any]] | None = getattr(_of_thread, "opened", None)
    if opened is None:
        opened = _of_thread.opened = []
    return opened


def _put_back(opened: list[Reversible[Any]], depth: int) -> None:
    """Put back from the inside out until `depth` contexts are left; then raise what came in between."""
    if len(opened) <= depth:
        return
    came: list[BaseException] = []

    def put_back() -> None:
        while len(opened) > depth:
            came.extend(_raised_by(opened[-1].put_back, attempts=_ATTEMPTS))
            opened.pop()

    came.extend(_raised_by(partial(_undivided, put_back), attempts=_ATTEMPTS))
    if came:
        raise came[0]


def handlers() -> dict[int, Any]:
    """The handlers of all signals that have one in Python, or none at all: as they are where nothing is held back."""
    found = {number: _signal.getsignal(number) for number in _SIGNALS}
    return {number: _held.get(number, handler) for number, handler in found.items() if handler is not None}


def set_handlers(wanted: Mapping[int, Any]) -> None:
    """Have these handlers from the moment when nothing is held back any more. Only in the main thread."""
    for number, handler in wanted.items():
        if number in _held:
            _held[number] = handler
        elif _signal.getsignal(number) != handler:
            _signal.signal(number, handler)


def _undivided(action: Callable[[], T]) -> T:
    """Do it while signals are held back."""
    held = _SignalsHeld()
    try:
        try:
            held.begin()
            return action()
        finally:
            held.end()
    finally:
        held.end()


class _SignalsHeld:
    """Signals that Python handles are noted and raised again at the end. Only the main thread gets any."""

    def __init__(self) -> None:
        self._came: list[int] = []
        self._own: list[int] = []

    def begin(self) -> None:
        """Put a handler of ours in the place of each."""
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            for number, handler in handlers().items():
                if number not in _held and callable(handler):
                    self._own.append(number)
                    _held[number] = handler
                    _signal.signal(number, self._note)
        except ValueError:  # an interpreter inside another one: its main thread gets none either
            self._own.clear()
            _held.clear()

    def _note(self, number: int, _frame: object) -> None:
        self._came.append(number)

    def end(self) -> None:
        """Once; a second call finds nothing to do."""
        raised = _raised_by(self._give_back, attempts=_ATTEMPTS)
        while self._came:
            raised += _raised_by(partial(_signal.raise_signal, self._came.pop(0)), attempts=1)
        if raised:
            raise raised[0]

    def _give_back(self) -> None:
        for number in self._own:
            if number in _held:
                _signal.signal(number, _held[number])
                del _held[number]
        self._own.clear()


def _raised_by(action: Callable[[], None], attempts: int) -> list[BaseException]:
    """What came while `action` was done; where something did, it is done again."""
    raised: list[BaseException] = []
    while attempts > len(raised):
        try:
            action()
            break
        except BaseException as error:
            raised.append(error)
    return raised


_SIGNALS = sorted(_signal.valid_signals())
_held: dict[int, Any] = {}  # the handlers of signals that are held back
