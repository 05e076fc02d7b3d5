"""What the shell offers for the value of an option or argument."""

from __future__ import annotations

from collections.abc import Iterable

import typer  # noqa: TC002  # typer reads the annotations

from peft_inspect.formats import FORMATS

WEIGHTS = ("none", "random", "pretrained")
SEVERITIES = ("error", "warning", "note", "never")
COLORS = ("auto", "always", "never")


def weights(incomplete: str) -> list[str]:
    """For --weights."""
    return _starting(WEIGHTS, incomplete)


def severities(incomplete: str) -> list[str]:
    """For --fail-on."""
    return _starting(SEVERITIES, incomplete)


def formats(context: typer.Context, incomplete: str) -> list[str]:
    """For --format: those that the command has."""
    return _starting(next((names for command, names in FORMATS.items() if command == context.info_name), ()), incomplete)


def rules(incomplete: str) -> list[tuple[str, str]]:
    """Codes of rules with their names, or names of rules."""
    from peft_inspect.rules import all_rules

    found = [(rule.code, rule.name) for rule in all_rules() if rule.code.startswith(incomplete)]
    return found or [(rule.name, rule.code) for rule in all_rules() if rule.name.startswith(incomplete)]


def _starting(values: Iterable[str], incomplete: str) -> list[str]:
    return [value for value in values if value.startswith(incomplete)]
