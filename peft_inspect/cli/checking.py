"""What `check` does once its options are read: inspects the targets, writes the report, exits."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import typer

from peft_inspect.cli.accepting import Accepting
from peft_inspect.cli.inspecting import at_work, failures, prepared
from peft_inspect.cli.options import Reporting
from peft_inspect.cli.output import Output
from peft_inspect.cli.streams import FOUND
from peft_inspect.formats import View
from peft_inspect.formats.names import visible
from peft_inspect.formats.several import write_all
from peft_inspect.project import suggesting
from peft_inspect.project.config import read_config
from peft_inspect.project.targets import chosen, inspect_targets
from peft_inspect.records import Request


def check_targets(
    request: Request,
    reporting: Reporting,
    view: View,
    *,
    locked: bool,
    config: str | None,
    also: Sequence[str],
    processes: int,
    accepting: Accepting,
    converted: Path | None = None,
) -> None:
    """Inspect what was named, or all targets of the configuration; write the report in every format asked for, exit."""
    with failures(debug=reporting.debug):
        outputs = [(reporting.format, prepared(reporting, view)), *further_outputs(also, reporting, view)]
        project = read_config(Path.cwd(), config)
        accepting = replace(accepting, baseline=accepting.baseline or project.baseline)
        accepting.known()  # a file that is none is said before the time is spent
        targets = chosen(project, request, reporting.select, reporting.ignore, reporting.fail_on)
        how: Mapping[str, Any] = {"verify": reporting.verify, "processes": processes, "debug": reporting.debug}
        inspected = at_work(
            targets[0].name,
            lambda step: inspect_targets(project, targets, view.command, locked=locked, step=step, **how),
            debug=reporting.debug,
            apart=len(targets) == 1,
        )
        inspected = replace(inspected, reports=accepting.of(inspected.reports, whole=not inspected.failed))
        if inspected.reports or len(targets) > 1:
            why = {name: str(error) for name, error in inspected.failed.items()}
            for name, output in outputs:
                output.write(partial(write_all, name, inspected.reports, why, view=view, red=inspected.red))
                if name == "lora-config" and output.file is not None:
                    sys.stderr.write(f"peft-inspect: wrote {visible(str(output.file))}: the LoRA config that the findings suggest\n")
        if converted is not None and inspected.reports:
            sys.stderr.write(f"peft-inspect: {visible(suggesting.write(inspected.reports.values(), converted))}\n")
        if inspected.incomplete:
            raise inspected.incomplete
        raise typer.Exit(FOUND if inspected.red else 0)


def further_outputs(also: Sequence[str], reporting: Reporting, view: View) -> Iterator[tuple[str, Output]]:
    """The further formats and where they go."""
    for value in also:
        name, _, file = value.partition("=")
        if file in ("", "-"):
            raise typer.BadParameter(f"{value!r} is not of the form FORMAT=FILE", param_hint="--also")
        yield name, prepared(replace(reporting, format=name, output=file), view)
