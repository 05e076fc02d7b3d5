"""Wording that the messages of several rules share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from peft_inspect.records import Source, Structure, runs_of


def quoted(names: Iterable[str], most: int = 6) -> str:
    """`'a', 'b' and 3 more`."""
    every = tuple(names)
    shown = ", ".join(literal(name) for name in every[:most])
    return f"{shown} and {len(every) - most} more" if len(every) > most else shown


def ranges(numbers: Iterable[int]) -> str:
    """`0–4, 6–10` for block indices in any order; `none` for none."""
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs_of(numbers)) or "none"


def counted(number: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def agreed(number: int, one: str, many: str) -> str:
    """The word that goes with so many: `agreed(count, "is", "are")`."""
    return one if number == 1 else many


def literal(value: Any) -> str:
    r"""A value as one writes it in Python; regular expressions as raw strings, which a shell takes as well: `r'.*\.q_proj'`."""
    if isinstance(value, str) and "\\" in value and value.isprintable() and not value.endswith("\\") and "'" not in value:
        return f"r'{value}'"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    return repr(value)


def passed_by(structure: Structure, paths: Collection[str]) -> str:
    """`2 adapter layers and 1 module of modules_to_save`, whichever there are."""
    layers = len({layer.path for layer in structure.adapter_layers}.intersection(paths))
    modules = len(set(paths)) - layers
    parts = [counted(layers, "adapter layer")] if layers or not modules else []
    return " and ".join([*parts, counted(modules, "module") + " of modules_to_save"] if modules else parts)


def settings(fields: Mapping[str, Any]) -> str:
    """Config fields as one writes them in Python: `target_modules=['q_proj'], r=8`."""
    return ", ".join(f"{field}={literal(value)}" for field, value in fields.items())


def setting_fix(fields: Mapping[str, Any], otherwise: str) -> str:
    """The fix that sets these fields, or in words where nothing can be suggested."""
    return f"set {settings(fields)}" if fields else otherwise


def at_line(source: Source | None, fix: str) -> str:
    """The fix of a line; where a library holds it, what its user can do comes first."""
    return f"leave these layers out of target_modules, or change the library: {fix}" if source and source.library else fix


def nearest(names: Iterable[str]) -> str:
    """`; the nearest is 'a'` or `; the nearest are 'a', 'b'` behind a message; nothing where no name is near."""
    every = tuple(names)
    return f"; the nearest {'is' if len(every) == 1 else 'are'} {quoted(every)}" if every else ""
