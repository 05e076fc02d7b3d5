"""The Python API for what a training program does itself: `run` starts one under watch, `watch` is for one's own loop.

Torch is imported by the program, not by importing this module.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_inspect.inspection import FindingsError, Judging, Report
from peft_inspect.program.launch import Launch
from peft_inspect.program.undrawn import undrawn
from peft_inspect.records import Diagnosis, Severity, text_of

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from peft_inspect.program.executing import Ended
    from peft_inspect.program.ranks import Ranks
    from peft_inspect.program.session import Session

log = logging.getLogger("peft_inspect")


@dataclass(frozen=True)
class ProgramRun:
    """How a program ended that was run under watch, and what is to be said of the models that it trains."""

    ended: Ended
    reports: Mapping[str, Report]  # by class; empty where no step was seen
    seen: str  # what was seen instead
    ranks: Ranks | None = None  # the processes of its job, where it set up any


def run(
    launch: Launch,
    *,
    select: Iterable[str] = (),
    ignore: Iterable[str] | Mapping[str, str] = (),
    steps: int = 4,
    verify: bool = True,
    ends: Callable[[Iterable[Diagnosis]], bool] = lambda _: True,
    tell: Callable[[Mapping[str, Report]], None] = lambda _: None,
    abandon: Callable[[Mapping[str, Report]], None] = lambda _: None,
) -> ProgramRun:
    """Run a training program as Python would, and watch its first step; the program is stopped once its report is made.

    Args:
        launch: the program.
        select: codes, names or prefixes of the rules to judge by. Default: all.
        ignore: likewise, to leave out; a mapping gives the reason of each.
        steps: how many steps of its optimizer may be used to answer.
        verify: try the fixes in the next steps of the program.
        ends: whether the program is stopped after this answer; else it goes on, with nothing of the watching left.
        tell: told the reports before it goes on, in the first process of its job.
        abandon: called with the reports where the program swallows for ever what is to stop it.

    Raises:
        InspectionError: there is no such program; the message says what to do.
    """
    from peft_inspect.program import executing, program

    started = time.perf_counter()
    reports: dict[str, Report] = {}

    def conclude(diagnoses: Mapping[str, Diagnosis]) -> BaseException | None:
        reports.update(_reports(diagnoses, started))
        with undrawn():
            if ends(reports.values()):
                return executing.Stopped()
            if is_first_process():
                tell(reports)
            return None

    judging = Judging.of("check", select, ignore)
    doors = program.Doors(conclude, ends, lambda: abandon(reports))
    ended, seen, ranks = program.run(launch, judging.rules, judging.ignore, steps, doors, verify=verify)
    return ProgramRun(ended, reports, seen, ranks)


class Watching:
    """The watch over the steps of one training, from its beginning to an answer.

    Attributes:
        reports: of the models that are trained, by class; empty while no step was seen.
    """

    def __init__(
        self,
        fail_on: Severity | str = Severity.ERROR,
        *,
        steps: int = 4,
        select: Iterable[str] = (),
        ignore: Iterable[str] | Mapping[str, str] = (),
        verify: bool = True,
    ) -> None:
        """`fail_on` is a severity, or "never"; `steps` of the optimizer may be used to answer; the rest is as `check` takes it.

        Raises:
            ValueError: there is no such severity.
        """
        self._fail_on = fail_on if fail_on == "never" else Severity(fail_on)
        self._judging = Judging.of("check", select, ignore)
        self._steps, self._verify = steps, verify
        self._session: Session | None = None
        self._started = 0.0
        self.reports: Mapping[str, Report] = {}

    @property
    def report(self) -> Report | None:
        """The report, as soon as there is one."""
        return next(iter(self.reports.values()), None)

    def begin(self, source: str, runs: Callable[[], bool] = lambda: True) -> None:
        """Watch from now on. `source` names the training; where it ends without a word, `runs` tells that it is no longer going on."""
        self._started = time.perf_counter()
        self.reports = {}
        with undrawn():
            from peft_inspect.program.inquiry import Inquiry
            from peft_inspect.program.session import Session

            inquiry = Inquiry(source, self._judging.rules, self._judging.ignore, self._steps, verify=self._verify, ends=self._fails)
            self._session = Session(inquiry, self._conclude, self._log_failure, self._abandon, runs)
            self._session.begin()

    def end(self, *, to_the_end: bool) -> str:
        """Leave the process as it would be without this; returns why there is no report, where there is none.

        What was seen of a training that ended before its answer is judged first. `to_the_end` says that nothing cut it short.
        """
        assert self._session is not None
        self._session.finish(to_the_end=to_the_end)
        return "" if self.reports else self._session.refused or f"no training step was seen: {self._session.seen}"

    def raise_for_findings(self) -> None:
        """Raise where something is at or above `fail_on`.

        Raises:
            FindingsError: with the text report as its message.
        """
        if (failing := self._failing()) is not None:
            raise FindingsError(str(failing))

    def _conclude(self, diagnoses: Mapping[str, Diagnosis]) -> BaseException | None:
        with undrawn():
            self.reports = _reports(diagnoses, self._started)
            failing = self._failing()
            if failing is not None:
                return FindingsError(str(failing))
            for report in self.reports.values() if is_first_process() else ():
                log.log(logging.WARNING if report.findings else logging.INFO, "%s", report)
            return None

    def _abandon(self) -> None:
        """One of several processes that wait for each other for ever ends, and its launcher ends the others."""
        if not is_only_process() and (failing := self._failing()) is not None:
            log.error("%s", failing)
            os._exit(1)

    def _log_failure(self, error: Exception) -> None:
        log.error("peft-inspect: the training was not inspected: %s", text_of(error), exc_info=error)

    def _fails(self, diagnoses: Iterable[Diagnosis]) -> bool:
        return any(diagnosis.at_or_above(self._fail_on) for diagnosis in diagnoses)

    def _failing(self) -> Report | None:
        return next((report for report in self.reports.values() if report.at_or_above(self._fail_on)), None)


class watch(Watching):  # noqa: N801  # reads as what it does
    """Watch one's own training loop, in a script or a notebook: what `peft-inspect run` does, from inside.

        with peft_inspect.watch() as watched:
            for batch in loader:
                ...
        print(watched.report)

    The first step of every model with adapters is watched, and only where something is wrong the next ones too. A
    healthy training goes on bit for bit as it would have, and later steps cost nothing.

    Attributes:
        report: of the model that was trained, or of the first of several; None while no step was seen.
        reports: of all of them, by class.
    """

    def __enter__(self) -> Self:
        frame = sys._getframe(1)
        with undrawn():
            from peft_inspect.structure.source.lines import shown

        self.begin(f"{shown(frame.f_code.co_filename)}:{frame.f_lineno}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Judge what was seen, where that was not done before.

        Raises:
            FindingsError: something is at or above `fail_on`.
        """
        was_told = bool(self.reports)
        missing = self.end(to_the_end=error is None)
        if error is None and not was_told:
            self.raise_for_findings()
        if missing:
            log.warning("peft-inspect: %s", missing)


def is_only_process() -> bool:
    """Whether this is a process of no job."""
    from peft_inspect.structure.runtimes import place

    return place()[1] == 1


def is_first_process() -> bool:
    """Whether this is the first process of a job, or its only one."""
    from peft_inspect.structure.runtimes import place

    return place()[0] == 0


def _reports(diagnoses: Mapping[str, Diagnosis], started: float) -> dict[str, Report]:
    seconds = time.perf_counter() - started
    return {name: Report(**vars(diagnosis), timings={"total_s": seconds}) for name, diagnosis in diagnoses.items()}
