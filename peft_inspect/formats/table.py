"""Plain tables: columns aligned, nothing drawn that a search would stumble over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from peft_inspect.formats.names import visible
from peft_inspect.formats.screen import Line

GAP = 2
INDENT = 2

Section = tuple[Sequence[str], Sequence[Sequence[str]]]  # heads, rows


def table(sections: Sequence[Section], *, right: frozenset[int], wide: int) -> Iterator[Line]:
    """Sections of rows below their heads, all in the same columns; those in `right` are numbers.

    Heads of one cell are a line above the section. The last cell of a row may go on below itself. A first cell of
    more than `wide` columns has a line of its own: a regular expression, for instance. What a cell says is made safe to show here.
    """
    drawn = [(_safe(heads), [part for row in rows for part in _split(_safe(row), wide)]) for heads, rows in sections]
    every = [row for heads, rows in drawn for row in (heads, *rows) if len(row) > 1]
    widths = [max(cell_len(row[at]) for row in every if at < len(row)) for at in range(max(map(len, every), default=0))]
    hang = sum(widths[:-1]) + GAP * (len(widths) - 1)
    for heads, rows in drawn:
        yield Line(_row(heads, widths, right, "dim"), INDENT, hang=hang if len(heads) > 1 else 0)
        yield from (Line(_row(row, widths, right, ""), INDENT, hang=hang) for row in rows)


def _safe(cells: Sequence[str]) -> Sequence[str]:
    return [visible(cell) for cell in cells]


def _split(row: Sequence[str], wide: int) -> Iterator[Sequence[str]]:
    """The row in one line or two, set in below the heads."""
    first, *rest = row
    if cell_len(first) <= wide:
        yield f"  {first}", *rest
    else:
        yield (f"  {first}",)
        yield "", *rest


def _row(cells: Sequence[str], widths: Sequence[int], right: frozenset[int], style: str) -> Text:
    padded = []
    for at, (cell, width) in enumerate(zip(cells, widths, strict=False)):
        space = " " * (width - cell_len(cell))
        padded.append(space + cell if at in right else cell + space)
    return Text((" " * GAP).join(padded).rstrip(), style=style)
