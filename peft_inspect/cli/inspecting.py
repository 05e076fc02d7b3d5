"""What all commands do with a request: inspect, write, exit with the code that the contract gives."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import NoReturn, TypeVar

import typer

from peft_inspect.api import Report
from peft_inspect.cli.options import Reporting
from peft_inspect.cli.output import Output, stdout_kept_clean
from peft_inspect.cli.progress import progress
from peft_inspect.cli.streams import FAILED, FOUND, INTERRUPTED
from peft_inspect.formats import FORMATS, View, writer
from peft_inspect.formats.names import shortened, visible
from peft_inspect.formats.view import MEASURED
from peft_inspect.inspection import Step
from peft_inspect.project.config import Target
from peft_inspect.project.own_process import in_own_process, interrupted
from peft_inspect.project.targets import inspect_target, one_target
from peft_inspect.records import InspectionError, Request, text_of
from peft_inspect.reversible import patched, uncollected

T = TypeVar("T")


def run(request: Request, reporting: Reporting, view: View, *, diff: Request | None = None) -> NoReturn:
    """Inspect what was named, and what it is to be compared with; write the report, exit."""
    built = uncollected() if view.command == "tree" else nullcontext()  # nothing runs that could leave memory behind
    with failures(debug=reporting.debug), built:
        output = prepared(reporting, view)
        target, *others = (_target(each, reporting, view) for each in (request, diff) if each is not None)
        report, *more = at_work(target.name, partial(inspected, (target, *others), reporting, view), debug=reporting.debug)
        if more:
            view = replace(view, other=more[0])
        output.write(lambda out: writer(view.command, reporting.format, view)(report, out))
        if report.incomplete:
            raise InspectionError(report.incomplete)
        limit = "never" if view.command == "tree" else "error"
        found = report.at_or_above(reporting.fail_on or (target.fail_on if view.command != "tree" else None) or limit)
        raise typer.Exit(FOUND if found else 0)


def _target(request: Request, reporting: Reporting, view: View) -> Target:
    return one_target(request, view.command, reporting.select, reporting.ignore, reporting.fail_on)


def prepared(reporting: Reporting, view: View) -> Output:
    """Where the report will go. Bad usage is said before the time is spent.

    Raises typer.BadParameter for a format that the command does not have, InspectionError for a file that cannot be written.
    """
    formats = FORMATS[view.command]
    if reporting.format not in formats:
        raise typer.BadParameter(f"{reporting.format!r} is none of {', '.join(formats)}", param_hint="--format")
    return Output.to(reporting.output)


def inspected(targets: Iterable[Target], reporting: Reporting, view: View, step: Step) -> list[Report]:
    """The report of each."""
    measured = not MEASURED.isdisjoint(view.columns)
    return [inspect_target(target, view.command, verify=reporting.verify, activations=measured, step=step) for target in targets]


def at_work(what: str, work: Callable[[Step], T], *, debug: bool, apart: bool = True) -> T:
    """What `work` returns, while stdout is kept for the report alone, an exit of the process is seen, and a terminal shows progress.

    Args:
        what: is inspected, for messages.
        work: runs the user's code; called with what shows a step.
        debug: show where an error was raised.
        apart: in a process of its own.
    """

    def done() -> T:
        with stdout_kept_clean(), patched((os, "_exit", _noticed)), progress() as step:
            return work(step)

    return in_own_process(what, done, debug=debug) if apart else done()


def _noticed(leave: Callable[[int], NoReturn]) -> Callable[[int], NoReturn]:
    """`os._exit` as an exit that is seen: without it the user's code could end with a 0 that reads as clean. Forked children leave."""
    inspecting = os.getpid()

    def _exit(status: int) -> NoReturn:
        if os.getpid() != inspecting:
            leave(status)
        raise SystemExit(status)

    return _exit


@contextmanager
def failures(*, debug: bool) -> Iterator[None]:
    """Any failure as one clear message on stderr and its exit code; the traceback only when asked for."""
    try:
        yield
    except InspectionError as error:
        _complain(str(error), error.detail, debug=debug)
        raise typer.Exit(FAILED) from None
    except (KeyboardInterrupt, Exception) as error:
        if interrupted(error):
            _complain("interrupted", None, debug=debug)
            raise typer.Exit(INTERRUPTED) from None
        if isinstance(error, (typer.Exit, typer.BadParameter)):
            raise
        _complain(f"internal error: {text_of(error)}. --debug shows where; please report it", None, debug=debug)
        raise typer.Exit(FAILED) from None


def _complain(message: str, detail: str | None, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"peft-inspect: {visible(shortened(message), keep=chr(10))}\n")
    if detail:
        sys.stderr.write(visible(shortened(detail.rstrip(), 20_000), keep="\n\t") + "\n")
