"""A backward out of which no process comes: one of them went through its layers without gradients, and the others wait for it there.

Where collectives of one process meet others of another one, all of them wait in a library that hears neither exceptions nor
Ctrl-C. The process that has the fault knows it from its forward; a thread of its own tells it and ends the process, upon which
its launcher ends the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from peft_inspect.program.ranks import STUCK
from peft_inspect.reversible import Reversible

if TYPE_CHECKING:
    from peft_inspect.program.ranks import Ranks

_PAUSE = 0.5  # seconds between two looks at the others


class told_if_stuck(Reversible[None]):  # noqa: N801  # reads as what it does
    """Where this process stays inside and is `blind`, while one that is not waits in its backward too, `tell` is called once."""

    def __init__(self, ranks: Ranks, blind: Callable[[], bool], tell: Callable[[], None]) -> None:
        self._ranks, self._blind, self._tell = ranks, blind, tell
        self._out = threading.Event()
        self._telling = threading.Lock()
        self._inside = False

    def set_up(self) -> None:
        """Tell the others that this process has gone into its backward."""
        self._ranks.within_backward(inside=True)
        self._inside = True
        if self._ranks.size > 1:
            threading.Thread(target=self._wait, daemon=True).start()

    def put_back(self) -> None:
        """Tell them that it has come out of it."""
        self._out.set()
        with self._telling:
            if self._inside:
                self._inside = False
                self._ranks.within_backward(inside=False)

    def _wait(self) -> None:
        if self._out.wait(STUCK):
            return
        blind = self._blind()
        self._ranks.say_blind(blind=blind)
        while blind and not self._out.wait(_PAUSE):
            with self._telling:
                if self._ranks.others_wait_seeing() and not self._out.is_set():
                    self._tell()
                    return
