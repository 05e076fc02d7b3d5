"""`peft-inspect lock [MODEL]`."""

from __future__ import annotations

from typing import Annotated

import typer

from peft_inspect.cli.help import GroupedCommand
from peft_inspect.cli.options import JOBS, RUN, Reporting, with_shared_options
from peft_inspect.records import Request


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=GroupedCommand)(with_shared_options(lock))


def lock(
    request: Request,
    reporting: Reporting,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="Default: peft-inspect.toml or pyproject.toml, here or above.", rich_help_panel=RUN)
    ] = None,
    processes: JOBS = 1,
) -> None:
    """Write what is built to peft-inspect.lock, for `check --locked`.

    Without MODEL: all targets of the configuration. Other targets in the file stay as they are.
    """
    from peft_inspect.cli.locking import lock_targets

    lock_targets(request, reporting, config=config, processes=processes)
