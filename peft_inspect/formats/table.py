"""Plain tables: columns aligned, nothing drawn that a search would stumble over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from peft_inspect.formats.screen import Line

GAP = 2


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), indent: int = 2, wide: int = 48
) -> Iterator[Line]:
    """A head and one line per row, whose last cell may go on below itself; the columns in `right` are numbers.

    A first cell of more than `wide` columns has a line of its own: a regular expression, for instance.
    """
    lines = [part for row in rows for part in _split(row, wide)]
    widths = [max(cell_len(row[at]) for row in (heads, *lines) if len(row) > 1) for at in range(len(heads))]
    yield Line(_row(heads, widths, right, "dim"), indent)
    for row in lines:
        yield Line(_row(row, widths, right, ""), indent, hang=sum(widths[:-1]) + GAP * (len(widths) - 1))


def _split(row: Sequence[str], wide: int) -> Iterator[Sequence[str]]:
    if cell_len(row[0]) <= wide:
        yield row
    else:
        yield row[:1]
        yield "", *row[1:]


def _row(cells: Sequence[str], widths: Sequence[int], right: frozenset[int], style: str) -> Text:
    padded = []
    for at, (cell, width) in enumerate(zip(cells, widths, strict=False)):
        space = " " * (width - cell_len(cell))
        padded.append(space + cell if at in right else cell + space)
    return Text((" " * GAP).join(padded).rstrip(), style=style)
