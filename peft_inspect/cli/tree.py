"""`peft-inspect tree MODEL`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, get_args

import typer

from peft_inspect.cli.help import GroupedCommand
from peft_inspect.cli.inspecting import run
from peft_inspect.cli.options import Reporting, with_shared_options
from peft_inspect.cli.values import names
from peft_inspect.formats.view import COLUMNS, Column
from peft_inspect.project.other import other_request
from peft_inspect.records import Request

TREE = "Tree"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=GroupedCommand)(with_shared_options(tree))


def tree(
    request: Request,
    reporting: Reporting,
    depth: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Levels below the root. Default: all; HTML is folded by its reader.", rich_help_panel=TREE),
    ] = None,
    match: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only modules whose path matches, and the way to them.", rich_help_panel=TREE)
    ] = None,
    expand: Annotated[
        bool, typer.Option("--expand", help="Every block and what is inside adapter layers; HTML has them all.", rich_help_panel=TREE)
    ] = False,
    targets: Annotated[bool, typer.Option("--targets", help="What each entry of the LoRA config reached.", rich_help_panel=TREE)] = False,
    diff: Annotated[
        str | None, typer.Option(metavar="OTHER", help="Another LoRA config, adapter or MODEL: what changes with it.", rich_help_panel=TREE)
    ] = None,
    columns: Annotated[str, typer.Option(metavar="NAMES", help=f"Any of {', '.join(get_args(Column))}.", rich_help_panel=TREE)] = "params",
    exact: Annotated[bool, typer.Option("--exact", help="Numbers to the last digit.", rich_help_panel=TREE)] = False,
    ascii_: Annotated[bool, typer.Option("--ascii", help="7-bit characters only.", rich_help_panel=TREE)] = False,
) -> None:
    """The wrapper hierarchy: every tower, repeated blocks folded, adapter layers marked, faults flagged in place."""
    view = reporting.view(
        "tree", depth=depth, match=match, expand=expand, exact=exact, targets=targets, columns=_columns(columns), ascii=ascii_
    )
    if diff is not None:
        view = replace(view, other_name=diff)
        if reporting.format == "json":
            raise typer.BadParameter("a difference is drawn as text, html, svg or markdown", param_hint="--diff")
    run(request, reporting, view, diff=None if diff is None else other_request(request, diff))


def _columns(value: str) -> tuple[Column, ...]:
    wanted = names(value) or []
    unknown = [name for name in wanted if name not in COLUMNS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(COLUMNS)}", param_hint="--columns")
    return tuple(column for name in wanted for column in COLUMNS if column == name)
