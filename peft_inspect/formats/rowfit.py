"""Rows of the tree on a screen: columns aligned, long labels shortened part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from peft_inspect.formats.branches import Row
from peft_inspect.formats.labels import Part
from peft_inspect.formats.view import View

HEADS = {"params": ("params", "trainable")}
LEFT = frozenset({"path", "shape", "dtype", "device"})
GAP = 2
LEAST_LABEL = 44  # columns that leave less than this to the labels are cut at the edge of the screen instead


def header(rows: Sequence[Row], view: View, width: int) -> Text:
    """The names of the columns."""
    label = _label_width(rows, view, width)
    text = Text(" " * label, style="dim")
    for name, wide, left in _columns(rows, view):
        text.append(" " * GAP + (name.ljust(wide) if left else name.rjust(wide)))
    text.rstrip()
    return text


def fitted(rows: Sequence[Row], view: View, width: int) -> Iterator[Text]:
    """One line per row; a remark that is too long goes on in the next."""
    label = _label_width(rows, view, width)
    columns = _columns(rows, view)
    for row in rows:
        if not row.cells:
            yield from _remark(row, width)
            continue
        first, *more = _label_lines(row.label, label - cell_len(row.guide))
        text = Text.assemble((row.guide, "dim"), first)
        text.pad_right(max(0, label - text.cell_len))
        for cell, (_, wide, left) in zip(row.cells, columns, strict=True):
            text.append(" " * GAP + (cell.ljust(wide) if left else cell.rjust(wide)))
        text.rstrip()
        yield text
        yield from (Text.assemble((f"{_onwards(row.guide)}  ", "dim"), line) for line in more)


def _columns(rows: Sequence[Row], view: View) -> list[tuple[str, int, bool]]:
    """Name, width and alignment of each column."""
    names = [(head, column in LEFT) for column in view.columns for head in HEADS.get(column, (column,))]
    cells = [row.cells for row in rows if row.cells]
    return [(name, max([len(name), *(cell_len(row[at]) for row in cells)]), left) for at, (name, left) in enumerate(names)]


def _label_width(rows: Sequence[Row], view: View, width: int) -> int:
    widest = max(cell_len(row.guide) + _length(row.label) for row in rows if row.cells)
    taken = sum(wide + GAP for _, wide, _ in _columns(rows, view))
    return min(widest, max(LEAST_LABEL, width - taken))


def _length(parts: Sequence[Part]) -> int:
    return sum(cell_len(part.text) + 1 for part in parts) - 1


def _label_lines(parts: Sequence[Part], room: int) -> list[Text]:
    """The label, without its least important parts where it is too long, in further lines where that is not enough."""
    while _length(parts) > room and (least := max((part.drop for part in parts), default=0)):
        parts = [part for part in parts if part.drop != least]
    lines = [Text()]
    for part in parts:
        if lines[-1] and lines[-1].cell_len + 1 + cell_len(part.text) > room:
            lines.append(Text())
        lines[-1].append(" " if lines[-1] else "")
        lines[-1].append(part.text, style=part.style or None)
    for line in lines:
        line.truncate(max(room, 1), overflow="ellipsis")
    return lines


def _onwards(guide: str) -> str:
    """The guides of the line below."""
    return guide.replace("├─", "│ ").replace("└─", "  ").replace("├", "│").replace("└", " ")


def _remark(row: Row, width: int) -> Iterator[Text]:
    """Prose that goes on in further lines."""
    style = row.label[0].style
    room = max(width - cell_len(row.guide), 20)
    guide, line = row.guide, ""
    for word in " ".join(part.text for part in row.label).split(" "):
        if line and cell_len(line) + 1 + cell_len(word) > room:
            yield Text.assemble((guide, "dim"), (line, style))
            guide, line = _onwards(row.guide), word
        else:
            line = f"{line} {word}" if line else word
    yield Text.assemble((guide, "dim"), (line, style))
