"""What `run` does once its options are read: run the program, write the report, exit."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import typer

from peft_inspect.api import Report
from peft_inspect.cli.accepting import Accepting
from peft_inspect.cli.checking import further_outputs
from peft_inspect.cli.inspecting import failures, prepared
from peft_inspect.cli.options import Reporting
from peft_inspect.cli.streams import FAILED, FOUND, INTERRUPTED, KeptStreams
from peft_inspect.formats import View
from peft_inspect.formats.several import write_all
from peft_inspect.library_warnings import as_the_program_has_them
from peft_inspect.program.launch import Launch
from peft_inspect.programs import ProgramRun, run
from peft_inspect.project.baseline import Baseline
from peft_inspect.records import Diagnosis, InspectionError
from peft_inspect.reversible import patched


def run_program(
    script: str | None,
    module: str | None,
    arguments: tuple[str, ...],
    reporting: Reporting,
    view: View,
    *,
    steps: int,
    keep_going: bool,
    also: Sequence[str],
    accepting: Accepting,
) -> NoReturn:
    """Run the program under watch, and exit with the code that the contract gives."""
    launch = Launch(script, module, arguments)
    as_the_program_has_them()
    told: list[Mapping[str, Report]] = []
    streams = KeptStreams()
    with failures(debug=reporting.debug):
        outputs = [(reporting.format, prepared(reporting, view)), *further_outputs(also, reporting, view)]

        known = accepting.known()

        def fails(diagnoses: Iterable[Diagnosis]) -> bool:
            return accepting.write is None and _fails((_accepted(known, each) for each in diagnoses), reporting)

        def tell(reports: Mapping[str, Report]) -> None:
            told.append(reports)
            with streams.back():
                if sys.stderr.isatty():
                    sys.stderr.write("\n")  # a progress bar may stand on the line
                    sys.stderr.flush()
                reports = accepting.of(reports)
                red = [name for name, report in reports.items() if _fails((report,), reporting)]
                for name, output in outputs:
                    output.write(partial(write_all, name, reports, {}, view=view, red=red, what="models"))

        def abandon(reports: Mapping[str, Report]) -> None:
            tell(reports)
            os._exit(FOUND if fails(reports.values()) else 0)

        def ends(diagnoses: Iterable[Diagnosis]) -> bool:
            return not keep_going or fails(diagnoses)

        judging: Mapping[str, Any] = {"select": reporting.select, "ignore": reporting.ignore, "verify": reporting.verify}
        try:
            with patched((os, "_exit", partial(_noticed, told, streams))):
                done = run(launch, **judging, steps=steps, ends=ends, tell=tell, abandon=abandon)
        finally:
            streams.restore()
        if told or (done.reports and done.ended.how != "stopped" and keep_going):
            sys.exit(done.ended.code)
        if done.reports:
            _in_one_process(done, tell)
        _leave(done, fails)


def _noticed(told: list[Mapping[str, Report]], streams: KeptStreams, leave: Callable[[int], NoReturn]) -> Callable[[int], NoReturn]:
    """`os._exit` of the program: before there is a report, its exit code is no verdict. Processes that it forked leave as they would."""
    watched = os.getpid()

    def _exit(status: int) -> NoReturn:
        if os.getpid() == watched and not told and os.environ.get("RANK", "0") == "0":
            streams.restore()
            sys.stderr.write(f"peft-inspect: no training step was seen: the program ended itself by os._exit({status})\n")
            sys.stderr.flush()
            leave(FAILED)
        leave(status)

    return _exit


def _in_one_process(done: ProgramRun, tell: Callable[[Mapping[str, Report]], None]) -> None:
    """Of several processes one writes, and the others end after it: launchers end all as soon as one fails."""
    if done.ranks is None or done.ranks.writes:
        tell(done.reports)
        if done.ranks is not None:
            done.ranks.has_written()
    else:
        done.ranks.wait_for_report()


def _accepted(known: Baseline, diagnosis: Diagnosis) -> Diagnosis:
    """What is left of a diagnosis, before the models of the program have names: several of one class have its line as well."""
    kind = diagnosis.structure.root_type
    for target in {entry["target"] for entry in known.entries}:
        if target == kind or target.startswith(f"{kind} ("):
            diagnosis = known.applied(target, diagnosis)
    return diagnosis


def _fails(diagnoses: Iterable[Diagnosis], reporting: Reporting) -> bool:
    return any(diagnosis.incomplete or diagnosis.at_or_above(reporting.fail_on or "error") for diagnosis in diagnoses)


def _leave(done: ProgramRun, fails: Callable[[Iterable[Diagnosis]], bool]) -> NoReturn:
    if not done.reports:
        if done.ended.how == "interrupted":
            sys.exit(INTERRUPTED)
        raise InspectionError(_without_step(done))
    if trouble := "; ".join(report.incomplete for report in done.reports.values() if report.incomplete):
        raise InspectionError(trouble)
    failed = fails(done.reports.values())
    if done.ended.how == "raised" and not failed:
        raise InspectionError("the program raised before its first step was complete: the report tells what was seen until then")
    if done.ranks is None or done.ranks.writes:
        sys.stderr.write(f"peft-inspect: {_ended(done, failed=failed)}\n")
    raise typer.Exit(FOUND if failed else 0)


def _ended(done: ProgramRun, *, failed: bool) -> str:
    """That the program was stopped, or came to its end before all had been looked at."""
    steps = max((len(report.steps) for report in done.reports.values()), default=0)
    after = f"after {steps} step{'' if steps == 1 else 's'}"
    if done.ended.how == "stopped":
        return f"the program was stopped {after}" + ("" if failed else "; --keep-going lets it train on")
    findings = [finding for report in done.reports.values() for finding in report.findings]
    open_ends = any(finding.fix_verified is None and finding.source is None for finding in findings)
    more = "; with more steps of its own (4 are enough) the place may be found, and the fix tried" if open_ends else ""
    return f"the program ended {after}{more}"


def _without_step(done: ProgramRun) -> str:
    if done.seen.startswith("not inspected"):
        return done.seen
    if done.ended.how == "raised":
        return f"the program raised before a training step was seen: {done.seen}"
    how = f"left with exit code {done.ended.code}" if done.ended.how == "exited" else "ended"
    return f"no training step was seen: the program {how}, and {done.seen}"
