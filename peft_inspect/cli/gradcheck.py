"""`peft-inspect gradcheck MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from peft_inspect.cli.help import GroupedCommand
from peft_inspect.cli.inspecting import run
from peft_inspect.cli.options import REPORT, Reporting, with_shared_options
from peft_inspect.records import Request


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=GroupedCommand)(with_shared_options(gradcheck))


def gradcheck(
    request: Request,
    reporting: Reporting,
    norms: Annotated[
        bool, typer.Option("--norms", help="Also the gradient norm of every adapter parameter.", rich_help_panel=REPORT)
    ] = False,
    ascii_: Annotated[bool, typer.Option("--ascii", help="7-bit characters only.", rich_help_panel=REPORT)] = False,
) -> None:
    """One batch forward and backward: which adapter parameters get a gradient, which do not, and why.

    Asks whether gradients arrive. torch.autograd.gradcheck is another thing: a finite-difference test of their values.
    """
    run(request, reporting, reporting.view("gradcheck", norms=norms, ascii=ascii_))
