"""What the callbacks share: how they are told to judge, and the watch over the first step of a trainer's training."""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from peft_inspect.programs import Watching
from peft_inspect.records import Severity

if TYPE_CHECKING:
    from types import FrameType

    from peft_inspect.inspection import Report

log = logging.getLogger("peft_inspect")

_STEPS = 10  # a group of completions with equal rewards has no gradient: so many batches are asked before zeros are a fault


class FirstStep:
    """Watches the first real step of a training: the model, the batch, the loss and the optimizer are the trainer's.

    Attributes:
        report: of the training; None before there is one.
    """

    def __init__(
        self,
        fail_on: Severity | str = Severity.ERROR,
        *,
        select: Iterable[str] = (),
        ignore: Iterable[str] | Mapping[str, str] = (),
        verify: bool = True,
    ) -> None:
        """`fail_on` is a severity, or "never"; the rest is as `peft_inspect.check` takes it.

        Raises:
            ValueError: there is no such severity.
        """
        self._watching = Watching(fail_on, steps=_STEPS, select=select, ignore=ignore, verify=verify)
        self._begun = False

    @property
    def report(self) -> Report | None:
        """The report, as soon as there is one."""
        return self._watching.report

    def _begin(self, trainer: Any) -> None:
        """Watch from now on, as long as a method of this trainer runs."""
        self._leave()
        self._begun = True
        self._watching.begin(type(trainer).__name__, _running(trainer))

    def _leave(self, *, to_the_end: bool = False) -> str:
        """Watch no longer a training that ended, or never came to its end; returns why there is no report, where there is none."""
        begun, self._begun = self._begun, False
        return self._watching.end(to_the_end=to_the_end) if begun else ""

    def _end(self) -> None:
        """The training has ended: one of which nothing was seen does not pass for a checked one, nor one too short to be stopped.

        Raises:
            FindingsError: something is at or above `fail_on`.
        """
        if missing := self._leave(to_the_end=True):
            log.warning("peft-inspect checked nothing: %s", missing)
        self._watching.raise_for_findings()


def _running(owner: Any) -> Callable[[], bool]:
    """Tells whether a method of `owner` is running: an exception ends a training and tells no callback."""
    known, thread = weakref.ref(owner), threading.get_ident()

    def runs() -> bool:
        if threading.get_ident() != thread:
            return True
        return any(found is known() for found in callers(sys._getframe(1)))

    return runs


def callers(frame: FrameType | None) -> Iterable[Any]:
    """The objects whose methods are running, from the inside out."""
    while frame is not None:
        if (found := frame.f_locals.get("self")) is not None:
            yield found
        frame = frame.f_back
