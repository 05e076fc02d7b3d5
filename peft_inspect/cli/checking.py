"""What `check` does once its options are read: the targets, the lock, the report, the exit code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import typer

from peft_inspect.api import Report
from peft_inspect.cli import suggesting
from peft_inspect.cli.inspecting import FOUND, crashes, failures, prepared
from peft_inspect.cli.options import Reporting
from peft_inspect.cli.output import Output
from peft_inspect.cli.targets import chosen, inspect_all, together
from peft_inspect.config import Config, Target, read_config
from peft_inspect.formats import View
from peft_inspect.formats.json import environment
from peft_inspect.formats.several import write_all
from peft_inspect.lock import FILE, read_lock, with_lock
from peft_inspect.records import InspectionError, Request


def check_targets(
    request: Request,
    reporting: Reporting,
    view: View,
    *,
    locked: bool,
    config: str | None,
    also: Sequence[str],
    processes: int,
    converted: Path | None = None,
) -> None:
    """Inspect what was named, or all targets of the configuration; write the report in every format asked for, exit."""
    with failures(debug=reporting.debug):
        outputs = [(reporting.format, prepared(reporting, view)), *further_outputs(also, reporting, view)]
        project = read_config(Path.cwd(), config)
        targets = chosen(project, request, reporting)
        lock = _lock(project) if locked else None
        reports, failed = inspect_all(targets, reporting, view, processes)
        if lock is not None:
            ignored = {target.name: target.ignore for target in targets}
            reports = {name: with_lock(report, name, lock, environment(), ignored[name]) for name, report in reports.items()}
        if reports or len(targets) > 1:
            why = {name: str(error) for name, error in failed.items()}
            for name, output in outputs:
                output.write(partial(write_all, name, reports, why, view=view))
        if converted is not None and reports:
            suggesting.write(reports.values(), converted)
        _leave(targets, reports, failed, project)


def further_outputs(also: Sequence[str], reporting: Reporting, view: View) -> Iterator[tuple[str, Output]]:
    """The further formats and where they go."""
    for value in also:
        name, _, file = value.partition("=")
        if file in ("", "-"):
            raise typer.BadParameter(f"{value!r} is not of the form FORMAT=FILE", param_hint="--also")
        yield name, prepared(replace(reporting, format=name, output=file), view)


def _lock(project: Config) -> Mapping[str, object]:
    path = lock_file(project)
    if not path.is_file():
        raise InspectionError(f"there is no {path}: write it with `peft-inspect lock`, with the same arguments")
    return read_lock(path)


def lock_file(project: Config) -> Path:
    """Beside the configuration, else in the working directory."""
    return (project.file.parent if project.file else Path()) / FILE


def _leave(targets: tuple[Target, ...], reports: Mapping[str, Report], failed: Mapping[str, InspectionError], project: Config) -> NoReturn:
    """As for one report: what could not be inspected weighs more than what was found."""
    crashed = {name: InspectionError(trouble) for name, report in reports.items() if (trouble := crashes(report))}
    if troubles := {**failed, **crashed}:
        raise together(troubles, targets, project)
    found = any(reports[target.name].at_or_above(target.fail_on or "error") for target in targets)
    raise typer.Exit(FOUND if found else 0)
