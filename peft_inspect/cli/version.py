"""`peft-inspect --version`: what a bug report needs."""

from __future__ import annotations

from typing import Annotated

import typer

from peft_inspect.version import __version__


def _print_versions(wanted: bool) -> None:
    if not wanted:
        return
    from peft_inspect.environment import environment

    typer.echo(f"peft-inspect {__version__}")
    for name, version in environment().items():
        typer.echo(f"{name} {version}")
    raise typer.Exit


def show_version(
    version: Annotated[
        bool,
        typer.Option("--version", help="Versions of peft-inspect and of the libraries it uses.", callback=_print_versions, is_eager=True),
    ] = False,
) -> None:
    """Why does this LoRA fine-tune not learn? The cause, its line of code, and the fix already tried."""
