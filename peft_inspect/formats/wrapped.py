"""Wrapping that keeps names readable: lines end at spaces, not after a label, and a long module path at a dot or a comma."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells

if TYPE_CHECKING:
    from rich.text import Text

_INSIDE = re.compile(r"[.,/|(]")


def wrapped(text: Text, room: int) -> list[Text]:
    """`text` as lines of at most `room` columns, without the spaces at their ends."""
    lines = list(text.divide(_breaks(text.plain, room)))
    for line in lines:
        line.rstrip()
    return lines


def _breaks(text: str, room: int) -> list[int]:
    """Where the lines after the first begin."""
    breaks: list[int] = []
    start = 0
    while (length := _length(text[start:], room)) is not None:
        start += length
        breaks.append(start)
    return breaks


def _length(text: str, room: int) -> int | None:
    """How much of `text` makes a first line; None when all of it does."""
    line = text.partition("\n")[0]
    if cell_len(line.rstrip()) <= room:
        return len(line) + 1 if len(line) < len(text) else None
    fits = len(chop_cells(line, room)[0])
    spaces = line.rfind(" ", 1, fits + 1)
    if line[:spaces].rstrip().endswith(":"):  # a label goes with the value that follows it
        before = line.rfind(" ", 1, len(line[:spaces].rstrip()))
        spaces = before if before > 0 and line[:before].strip() else spaces
    if line[:spaces].strip() and spaces > 0:
        return len(line) - len(line[spaces:].lstrip())
    inside = max((found.end() for found in _INSIDE.finditer(line, 0, fits)), default=0)
    return inside or fits
