"""The gradient map on a terminal: a dead tower, layer or kind of module is seen without reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from peft_inspect.formats.gradient_map import Cell, CellState, GradientMap, MapRow, binned
from peft_inspect.formats.names import visible
from peft_inspect.formats.screen import Line

LEVELS, ASCII_LEVELS = "▁▂▃▄▅▆▇█", "12345678"
SHADES = ("#2c5aa0", "#2f7fb8", "#2fa4b8", "#33b58f", "#63c05a", "#a3c13c", "#d9b52e", "#f0a020")
FEW = 12  # modules outside the stacks; the worst come first
WIDEST = 128  # blocks side by side, also where the screen has no limit


class Sign:
    """How the states are drawn: a sign of its own each, so that colour is never needed."""

    unicode: Mapping[CellState, str] = {
        "nonfinite": "N",
        "none": "✗",
        "frozen": "f",
        "not-run": "·",
        "zero": "0",
        "partial": "~",
        "connected": "■",
    }
    ascii: Mapping[CellState, str] = {**unicode, "none": "x", "not-run": ".", "connected": "#"}
    style: Mapping[CellState, str] = {
        "nonfinite": "bold magenta",
        "none": "bold red",
        "frozen": "yellow",
        "not-run": "dim",
        "zero": "bold red",
        "partial": "yellow",
        "connected": "green",
    }
    words: Mapping[CellState, str] = {
        "nonfinite": "NaN or infinite",
        "none": "no gradient",
        "frozen": "frozen",
        "not-run": "not run",
        "zero": "zero",
        "partial": "some without gradient",
        "connected": "connected to the loss",
    }


def map_lines(found: GradientMap, width: int, *, ascii_only: bool = False) -> Iterator[Line]:
    """The whole map with axis and legend; nothing for a model without adapters."""
    if not found.rows:
        return
    several = len({row.adapter for row in found.rows}) > 1
    labels = {id(row): visible(f"{row.label} [{row.adapter}]" if several else row.label) for row in found.rows}
    room = max(1, min(width, WIDEST) - 3)
    label_width = min(max((cell_len(labels[id(row)]) for row in found.rows if row.stack), default=0), room // 2)
    stacks = _by_stack(found.rows)
    for stack, rows in stacks.items():
        if stack:
            yield from _stack_lines(found, stack, rows, labels, label_width, room - label_width, ascii_only=ascii_only)
        else:
            yield Line(Text("outside the stacks" if len(stacks) > 1 else "adapter layers", style="bold"))
            for row in sorted(rows, key=lambda row: row.cells[0].worse)[:FEW]:
                yield Line(Text.assemble(_drawn(found, row.cells[0], ascii_only=ascii_only), " ", labels[id(row)]), 2, cut=True)
            if len(rows) > FEW:
                yield Line(Text(f"… and {len(rows) - FEW} more, none of them worse", style="dim"), 2)
    yield Line(_legend(found, ascii_only=ascii_only))


def _by_stack(rows: Sequence[MapRow]) -> dict[str, list[MapRow]]:
    stacks: dict[str, list[MapRow]] = {}
    for row in rows:
        stacks.setdefault(row.stack, []).append(row)
    return stacks


def _stack_lines(
    found: GradientMap, stack: str, rows: Sequence[MapRow], labels: Mapping[int, str], label_width: int, room: int, *, ascii_only: bool
) -> Iterator[Line]:
    """Name of the stack, axis, and one line per kind of module."""
    blocks = range(max(block for row in rows for block in row.cells) + 1)
    each = -(-len(blocks) // max(room, 8))
    bins = [blocks[start : start + each] for start in range(0, len(blocks), each)]
    said = f" (a cell is {each} layers, the worst of them)" if each > 1 else ""
    yield Line(Text.assemble((visible(stack), "bold"), (said, "dim")))
    yield Line(Text(" " * (label_width + 1) + _axis(bins), style="dim"), 2, cut=True)
    for row in rows:
        line = Text(labels[id(row)])
        line.truncate(label_width, overflow="ellipsis", pad=True)
        line.append(" ")
        for cell in binned(row.cells, bins):
            line.append_text(_drawn(found, cell, ascii_only=ascii_only))
        yield Line(line, 2, cut=True)


def _axis(bins: Sequence[range]) -> str:
    """Every tenth column's layer index."""
    axis = ""
    for at, group in enumerate(bins):
        if at % 10 == 0 and len(axis) <= at:
            axis = axis.ljust(at) + str(group[0])
    return axis


def _drawn(found: GradientMap, cell: Cell | None, *, ascii_only: bool) -> Text:
    if cell is None:
        return Text(" ")
    if cell.state == "ok" and cell.norm is not None:
        at = round(found.level(cell.norm) * (len(LEVELS) - 1))
        return Text((ASCII_LEVELS if ascii_only else LEVELS)[at], style=SHADES[at])
    return Text((Sign.ascii if ascii_only else Sign.unicode)[cell.state], style=Sign.style[cell.state])


def _legend(found: GradientMap, *, ascii_only: bool) -> Text:
    """The scale, and the signs that occur."""
    legend = Text()
    if found.norms is not None:
        low, high = found.norms
        levels = ASCII_LEVELS if ascii_only else LEVELS
        legend.append(
            f"gradient norm {levels[0]} {low:.1e} to {levels[-1]} {high:.1e}, log scale"
            if low < high
            else f"gradient norm {levels[-1]} {high:.1e}"
        )
    signs = Sign.ascii if ascii_only else Sign.unicode
    occurring = {cell.state for row in found.rows for cell in row.cells.values()}
    for state, sign in signs.items():
        if state in occurring:
            legend.append("   " if legend else "")
            legend.append(sign, style=Sign.style[state])
            legend.append(f" {Sign.words[state]}")
    return legend
