"""What of this tool is installed in the process of a program, and how it steps aside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from peft_inspect.program.compiled import Compiled
from peft_inspect.program.hooks import Hooks, Listener
from peft_inspect.reversible import Apart
from peft_inspect.run.changes import Changes
from peft_inspect.run.loads import Loads
from peft_inspect.trace.grad_mode import GradSwitches
from peft_inspect.trace.threads import Around, Watcher, following_threads, propagated_from

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Notes:
    """Who switched, loaded and made what, over the whole program."""

    switches: GradSwitches = field(default_factory=GradSwitches)
    changes: Changes = field(default_factory=Changes)
    loads: Loads = field(default_factory=Loads)


class Host(Listener, Protocol):
    """Who is present."""

    @property
    def runs(self) -> bool:
        """Whether the training that is watched still runs."""

    @property
    def as_written(self) -> bool:
        """Whether compiled code is to run as it was written, and to be watched."""

    @property
    def in_operation(self) -> list[Watcher]:
        """What watches the step at the moment, thread by thread."""

    def hide(self) -> None:
        """Watch nothing more of the calls in this step."""

    def end(self) -> None:
        """Watch no longer."""


class Presence:
    """The hooks, patches and notes of one session. Several watch a process at once where one begins inside another."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._hooks = Hooks(host)
        self._watching = Apart()
        self._building = Apart()  # until a model with adapters is called to be trained
        self._ended = False
        self.compiled = Compiled(self)
        self.notes = Notes()

    def begin(self) -> None:
        """Watch the process from now on. Where another session does already, both do."""
        for other in tuple(_present):
            if not other._host.runs:
                other._host.end()
        _present.append(self)
        self._install()

    def end(self) -> None:
        """Leave the process as it would be without this; what began inside it and still watches is left to end first."""
        self._ended = True
        while _present and _present[-1]._ended:
            innermost = _present.pop()
            innermost._remove()
            innermost.compiled.end()

    def _install(self) -> None:
        notes = self.notes
        self._watching.begin(notes.switches.watching(), notes.changes.watching(), notes.loads.watching())
        if not notes.changes.is_built:
            self._building.begin(notes.changes.writing())
        self._hooks.install()
        self._watching.begin(following_threads(self._propagate))
        self.compiled.install()

    def _remove(self) -> None:
        self.compiled.remove()
        self._hooks.remove()
        self._building.end()
        self._watching.end()

    def model_is_built(self) -> None:
        """What is written into weights from now on is written by the training."""
        self.notes.changes.is_built = True
        if _present == [self]:  # what another session has installed since stands on it
            self._building.end()

    def _propagate(self) -> Around:
        return propagated_from(self._hooks, self.notes.switches, *self._host.in_operation)()

    @property
    def as_written(self) -> bool:
        """As the session wants it."""
        return self._host.as_written

    @contextmanager
    def stepping_aside(self) -> Iterator[None]:
        """Compiled code runs inside as if nobody watched."""
        present = tuple(_present)
        for other in reversed(present):
            other._host.hide()
            other._remove()
        try:
            yield
        finally:
            for other in present:
                if other in _present:
                    other._install()

    def calling(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AbstractContextManager[None]:
        """A compiled module is called inside: what it is made of is called by nobody that a hook sees."""
        return self._hooks.calling(module, args, kwargs)


_present: list[Presence] = []  # in this process, the innermost last
