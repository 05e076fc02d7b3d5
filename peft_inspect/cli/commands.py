"""The commands by name, each imported when it is called for: the list of them imports none."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import typer
from typer.core import TyperGroup

COMMANDS: Mapping[str, str] = {
    "run": "A training program, unchanged: what is wrong, after its first step.",
    "tree": "The model as a tree: towers, folded blocks, adapters, faults.",
    "gradcheck": "One batch: which adapter parameters get a gradient, and why not.",
    "check": "The CI step: every rule, a report and an exit code.",
    "lock": "Write what is built to a file that `check --locked` compares.",
    "explain": "The page of a rule, or what a message that you saw means.",
}


class Commands(TyperGroup):
    """A group whose commands are the modules of this package that COMMANDS names."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Imported()

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # the signature of click
        """Their names, in the order of COMMANDS."""
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """A line for each."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


class _Imported(dict[str, Any]):
    """The commands by name, made when they are asked for."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(COMMANDS))

    def __getitem__(self, name: str) -> Any:
        return command(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The command of this name."""
        return command(name) if name in self else default


@cache
def command(name: str) -> Any:
    """The command of this name, with its options."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    importlib.import_module(f"peft_inspect.cli.{name}").register(app)
    found = typer.main.get_command(app)
    found.name = name
    return found
