"""Rows of the tree on a screen: columns aligned, long labels shortened part by part, nothing cut away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from rich.cells import cell_len
from rich.text import Text

from peft_inspect.formats.tree.branches import Row
from peft_inspect.formats.tree.columns import heads_of
from peft_inspect.formats.tree.labels import Part
from peft_inspect.formats.view import Column, View
from peft_inspect.formats.wrapped import wrapped
from peft_inspect.records import Structure

LEFT = frozenset({"path", "shape", "dtype", "device", "adapters", "output"})
GAP = 2
NARROW = 100  # below, a level takes two columns instead of three
LEAST_NAME = 20  # columns that the deepest name has at least
LEAST_LABEL = 44  # the columns that would leave less than this to the labels are told below each row instead


@dataclass(frozen=True)
class Fit:
    """The rows of one tree on a screen of `width` columns."""

    rows: Sequence[Row]
    view: View
    width: int
    structure: Structure

    def lines(self) -> Iterator[Text]:
        """The names of the columns, and one line per row; what is too long for it goes on below."""
        if self.beside:
            yield self._heads()
        for row in self.rows:
            if row.remark:
                yield from _prose(self._guide(row.guide), " ".join(part.text for part in row.label), row.label[0].style, self.width)
            else:
                yield from self._row(row)

    def _heads(self) -> Text:
        text = Text(" " * self._label, style="dim")
        for column in self.beside:
            self._append(text, column, heads_of(column, self.structure))
        text.rstrip()
        return text

    def _row(self, row: Row) -> Iterator[Text]:
        guide = self._guide(row.guide)
        first, *more = _label_lines(row.label, self._label - cell_len(guide))
        text = Text.assemble((guide, "dim"), first)
        text.pad_right(max(0, self._label - text.cell_len))
        for column in self.beside:
            self._append(text, column, row.cells[column])
        text.rstrip()
        yield text
        below = f"{_onwards(guide)}  "
        yield from (Text.assemble((below, "dim"), line) for line in more)
        below_it = (column for column in self.view.columns if column not in self.beside)
        cells = ((column, ", ".join(filter(None, row.cells[column][: 1 if column == "params" else None]))) for column in below_it)
        told = ", ".join(cell if column == "path" else f"{column} {cell}" for column, cell in cells if cell)
        if told:
            yield from _prose(below, told, "dim", self.width)

    def _guide(self, guide: str) -> str:
        """The guides; where they leave no room for a name, the last of them behind the number of those left out: `24… │ ├ `."""
        step = 2 if self.width < NARROW else 3
        room = max(self._label - LEAST_NAME, 2 * step)
        if cell_len(guide) <= room:
            return guide
        kept = max(1, (room - 4) // step)
        return f"{len(guide) // step - kept:>2}… {guide[-kept * step :]}"

    def _append(self, text: Text, column: Column, cells: Sequence[str]) -> None:
        for cell, wide in zip(cells, self._wide[column], strict=True):
            text.append(" " * GAP + (cell.ljust(wide) if column in LEFT else cell.rjust(wide)))

    @cached_property
    def _wide(self) -> dict[Column, tuple[int, ...]]:
        """The width of each cell of each column."""
        cells = {
            column: [heads_of(column, self.structure), *(row.cells[column] for row in self.rows if not row.remark)]
            for column in self.view.columns
        }
        return {column: tuple(max(map(cell_len, same)) for same in zip(*of, strict=True)) for column, of in cells.items()}

    @cached_property
    def _longest(self) -> int:
        return max(cell_len(row.guide) + _length(row.label) for row in self.rows if not row.remark)

    @cached_property
    def beside(self) -> tuple[Column, ...]:
        """The columns that there is room for beside the labels, in the order asked for; the others are told below."""
        room = self.width - min(self._longest, self._least)
        for at, column in enumerate(self.view.columns):
            room -= sum(wide + GAP for wide in self._wide[column])
            if room < 0:
                return self.view.columns[:at]
        return self.view.columns

    @cached_property
    def _label(self) -> int:
        """The width of the labels."""
        taken = sum(wide + GAP for column in self.beside for wide in self._wide[column])
        return min(self._longest, self.width, max(self._least, self.width - taken))

    @property
    def _least(self) -> int:
        """The columns that the labels have at least: fewer where columns say what would stand in them."""
        return LEAST_LABEL - 10 if "adapters" in self.view.columns else LEAST_LABEL


def _length(parts: Sequence[Part]) -> int:
    return sum(cell_len(part.text) + 1 for part in parts) - 1


def _label_lines(parts: Sequence[Part], room: int) -> list[Text]:
    """The label in as few lines as it takes; parts are left out, the least important first, only where that saves a line."""
    shortened = [parts]
    while least := max((part.drop for part in shortened[-1]), default=0):
        shortened.append([part for part in shortened[-1] if part.drop != least])
    return min((_broken(some, room) for some in shortened), key=len)


def _broken(parts: Sequence[Part], room: int) -> list[Text]:
    """The parts in lines of at most `room` columns."""
    lines = [Text()]
    parts = [piece for part in parts for piece in _pieces(part, room)]
    for at, part in enumerate(parts):
        if lines[-1] and lines[-1].cell_len + 1 + _length(parts[at : at + 1 + part.opens]) > room:
            lines.append(Text())
        lines[-1].append(" " if lines[-1] else "")
        lines[-1].append(part.text, style=part.style or None)
    for line in lines:
        line.truncate(max(room, 1), overflow="ellipsis")
    return lines


def _pieces(part: Part, room: int) -> Iterator[Part]:
    """A part as it is, unless it is prose that takes more than a line."""
    if " " not in part.text or cell_len(part.text) <= room:
        yield part
    else:
        yield from (replace(part, text=line.plain) for line in wrapped(Text(part.text), max(room, 1)))


def _onwards(guide: str) -> str:
    """The guides of the line below."""
    return guide.replace("├─", "│ ").replace("└─", "  ").replace("├", "│").replace("└", " ")


def _prose(guide: str, text: str, style: str, width: int) -> Iterator[Text]:
    """A remark that goes on in further lines."""
    for line in wrapped(Text(text, style=style), max(width - cell_len(guide), 20)):
        yield Text.assemble((guide, "dim"), line)
        guide = _onwards(guide)
