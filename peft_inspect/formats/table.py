"""Plain tables: columns aligned, nothing drawn that a search would stumble over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from peft_inspect.formats.screen import Line

GAP = 2


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), indent: int = 2) -> Iterator[Line]:
    """A head and one line per row, whose last cell may go on below itself; the columns in `right` are numbers."""
    widths = [max(cell_len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    yield Line(_row(heads, widths, right, "dim"), indent)
    for row in rows:
        yield Line(_row(row, widths, right, ""), indent, hang=sum(widths[:-1]) + GAP * (len(widths) - 1))


def _row(cells: Sequence[str], widths: Sequence[int], right: frozenset[int], style: str) -> Text:
    padded = []
    for at, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        space = " " * (width - cell_len(cell))
        padded.append(space + cell if at in right else cell + space)
    return Text((" " * GAP).join(padded).rstrip(), style=style)
