"""Values of options: lists of names, regular expressions, FIELD=VALUE."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import typer

_REGEX_SIGNS = frozenset("\\*+?()[]{}|^$")
_PYTHON = {"True": True, "False": False, "None": None}


def names(value: str | None) -> list[str] | None:
    """`a,b` as a list."""
    return None if value is None else [name for part in value.split(",") if (name := part.strip())]


def names_or_regex(value: str | None) -> list[str] | str | None:
    """What PEFT wants: a list of names, or one string that is `all-linear` or a regular expression."""
    if value is None or value == "all-linear" or _REGEX_SIGNS.intersection(value):
        return value
    return names(value)


def assignments(values: Iterable[str] | None, option: str) -> dict[str, Any]:
    """`KEY=VALUE` pairs; a value is JSON where it reads as JSON, else a string."""
    found: dict[str, Any] = {}
    for value in values or ():
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(f"{value!r} is not of the form KEY=VALUE", param_hint=option)
        found[key.strip()] = _value(text.strip())
    return found


def _value(text: str) -> Any:
    if text in _PYTHON:
        return _PYTHON[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, a number of more digits than Python reads, or nested without end
        return text
