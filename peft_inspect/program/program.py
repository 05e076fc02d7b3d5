"""A program run to its end or to its report, watched from the moment at which it has imported PEFT."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_inspect.program.executing import Ended, Stopped, execute, start
from peft_inspect.program.imports import AfterImport
from peft_inspect.program.launch import Launch, prepare
from peft_inspect.program.undrawn import undrawn
from peft_inspect.records import Diagnosis
from peft_inspect.rules import Rule

if TYPE_CHECKING:
    from peft_inspect.program.ranks import Ranks
    from peft_inspect.program.session import Session


@dataclass(frozen=True)
class Doors:
    """What is done with an answer.

    `conclude` is told the diagnosis of each model that the program trains; what it returns is raised in the program. `ends` tells
    before whether the program is stopped after an answer, and `abandon` ends the process of one that goes on for ever all the same.
    """

    conclude: Callable[[Mapping[str, Diagnosis]], BaseException | None]
    ends: Callable[[Iterable[Diagnosis]], bool]
    abandon: Callable[[], None]


def run(
    launch: Launch, rules: Sequence[Rule[Any]], ignore: Mapping[str, str], steps: int, doors: Doors, *, verify: bool
) -> tuple[Ended, str, Ranks | None]:
    """Run the program under watch.

    Args:
        launch: what to run.
        rules: what it is judged by.
        ignore: code of a rule to ignore → the reason.
        steps: how many of the optimizer's steps may be used to answer.
        verify: try the fixes in the program's next steps.
        doors: what is done with the answer.

    Returns:
        How it ended; what was seen, in words for where no step was; and the processes of its job, where it set up any.

    Raises:
        InspectionError: there is no such program.
        Exception: what went wrong in the watching itself; the program was stopped.
    """
    sessions: list[Session] = []
    failures: list[Exception] = []

    def failed(error: Exception) -> BaseException:
        failures.append(error)
        return Stopped()

    def watch() -> None:
        with undrawn():
            from peft_inspect.program.inquiry import Inquiry
            from peft_inspect.program.session import Session
            from peft_inspect.structure.source.lines import boundary

            boundary(start)
            session = Session(
                Inquiry(launch.line, rules, ignore, steps, verify=verify, ends=doors.ends), doors.conclude, failed, doors.abandon
            )
            sessions.append(session)
            session.begin()

    waiting = AfterImport("peft", watch)
    prepared = prepare(launch)
    waiting.begin()
    completed = False
    try:
        ended = execute(prepared)
        completed = ended.how == "returned" or (ended.how == "exited" and ended.code == 0)
    finally:
        waiting.end()
    if sessions:
        sessions[0].finish(to_the_end=completed)
    if failures:
        raise failures[0]
    if not sessions:
        return ended, "it never imported PEFT", None
    return ended, sessions[0].refused or str(sessions[0].seen), sessions[0].ranks
