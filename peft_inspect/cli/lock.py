"""`peft-inspect lock [MODEL]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from peft_inspect.cli.check import lock_file
from peft_inspect.cli.help import GroupedCommand
from peft_inspect.cli.options import RUN, Reporting, with_shared_options
from peft_inspect.cli.output import Output
from peft_inspect.cli.run import failures
from peft_inspect.cli.targets import chosen, inspect_all
from peft_inspect.config import read_config
from peft_inspect.formats import View
from peft_inspect.formats.json import environment
from peft_inspect.lock import locked, read_lock, write_lock
from peft_inspect.records import InspectionError, Request


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=GroupedCommand)(with_shared_options(lock))


def lock(
    request: Request,
    reporting: Reporting,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="Default: peft-inspect.toml or pyproject.toml, here or above.", rich_help_panel=RUN)
    ] = None,
) -> None:
    """Write what is built to peft-inspect.lock, for `check --locked`.

    Without MODEL: all targets of the configuration. Other targets in the file stay as they are.
    """
    with failures(debug=reporting.debug):
        project = read_config(Path.cwd(), config)
        targets = chosen(project, request, reporting)
        path = Path(reporting.output) if reporting.output else lock_file(project)
        kept = read_lock(path.read_text(encoding="utf-8"), str(path))["targets"] if path.is_file() and request.model else {}
        reports, failed = inspect_all(targets, reporting, View("tree"), 1)
        if failed:
            raise InspectionError("\n".join(map(str, failed.values())))
        built = {name: locked(report.structure) for name, report in reports.items()}
        Output.to(str(path)).write(lambda out: write_lock({**kept, **built}, environment(), out))
        layers = sum(len(report.structure.adapter_layers) for report in reports.values())
        sys.stderr.write(f"peft-inspect: wrote {path}: {len(built)} target{'' if len(built) == 1 else 's'}, {layers} adapter layers\n")
