"""`peft-inspect check MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peft_inspect.cli.help import GroupedCommand
from peft_inspect.cli.options import BASELINE, JOBS, REPORT, RUN, WRITE_BASELINE, Reporting, with_shared_options
from peft_inspect.records import Request


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=GroupedCommand)(with_shared_options(check))


def check(
    request: Request,
    reporting: Reporting,
    locked: Annotated[
        bool, typer.Option("--locked", help="Fail when what is built is not what the lock file says.", rich_help_panel=REPORT)
    ] = False,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="Default: peft-inspect.toml or pyproject.toml, here or above.", rich_help_panel=RUN)
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="FORMAT=FILE", help="Write the same report in another format as well; repeatable.", rich_help_panel=REPORT),
    ] = None,
    suggest: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Write the LoRA config that the findings suggest, as PEFT's JSON; into a folder: the adapter, converted.",
            rich_help_panel=REPORT,
        ),
    ] = None,
    baseline: BASELINE = None,
    write_baseline: WRITE_BASELINE = None,
    processes: JOBS = 1,
    ascii_: Annotated[bool, typer.Option("--ascii", help="7-bit characters only.", rich_help_panel=REPORT)] = False,
) -> None:
    """The CI step: every rule over structure, source and one batch; a report and an exit code.

    Without MODEL: all targets of the configuration. MODEL may be the name of one.
    """
    from peft_inspect.cli.accepting import Accepting
    from peft_inspect.cli.checking import check_targets
    from peft_inspect.project.suggesting import is_folder

    folder = Path(suggest) if suggest and is_folder(suggest) else None
    formats = [*(also or ()), *([f"lora-config={suggest}"] if suggest and folder is None else ())]
    view = reporting.view("check", ascii=ascii_)
    check_targets(
        request,
        reporting,
        view,
        locked=locked,
        config=config,
        also=formats,
        processes=processes,
        converted=folder,
        accepting=Accepting(baseline, write_baseline),
    )
