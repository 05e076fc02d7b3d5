"""The coverage table: which layers there are in each tower, and how many of each sort carry an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.text import Text

from peft_inspect.formats.names import brief_ranges, visible
from peft_inspect.formats.numbers import count, share
from peft_inspect.formats.screen import Line
from peft_inspect.formats.table import Section, table
from peft_inspect.formats.wrappers import chains
from peft_inspect.records import Coverage, Structure

LAST = 8  # columns that the layer indices have at least
BAR = 10  # columns of the longest bar
FULL, EMPTY = "█", "░"


@dataclass(frozen=True)
class CoveredRow:
    """One sort of layer, or what one of several adapters has of it. The parts are of the parameters of all layers."""

    cells: tuple[str, ...]
    part: float = 0.0  # of this sort of layer; of further adapters none, since the first row has it
    adapted: float = 0.0  # of those that carry an adapter


@dataclass(frozen=True)
class Covered:
    """The whole table: a sentence, the heads of its columns, and the rows of each place."""

    said: str
    heads: tuple[str, ...]
    places: tuple[tuple[str, tuple[CoveredRow, ...]], ...]


def covered(structure: Structure) -> Covered | None:
    """The table; None for a model without layers to adapt."""
    shown = [coverage for coverage in structure.coverage if coverage.adapted or coverage.kind in ("linear", "experts")]
    if not shown:
        return None
    total, adapted = sum(coverage.parameters for coverage in shown), sum(coverage.adapted_parameters for coverage in shown)
    several = len(structure.adapters) > 1
    inside = chains(structure)[0].base.path + "."
    places: dict[tuple[str, str], list[CoveredRow]] = {}
    for coverage in shown:
        tower = coverage.tower.removeprefix(inside)
        places.setdefault((tower, coverage.block), []).extend(_rows(coverage, total, tower, several=several))
    return Covered(
        f"layers with {share(adapted, total)} of {count(total)} parameters carry an adapter",
        ("layer", "params", "share", *(("adapter",) if several else ()), "adapted", "r", "layers"),
        tuple((f"{tower or 'outside towers'} {block}".rstrip(), tuple(rows)) for (tower, block), rows in places.items()),
    )


def coverage_lines(structure: Structure, width: int) -> Iterator[Line]:
    """The table as text, with a bar for each sort of layer where a screen of `width` columns has room for them."""
    found = covered(structure)
    if found is None:
        return
    yield Line(Text(f"covered: {found.said}", style="bold"))
    drawn = list(_table(found, bars=True))
    room = width - max(line.indent + line.hang for line in drawn)  # for the last column, whose cells may go on below
    yield from drawn if room >= LAST else _table(found, bars=False)


def _table(found: Covered, *, bars: bool) -> Iterator[Line]:
    most = max(row.part for _, rows in found.places for row in rows)
    at = 3 if bars else len(found.heads)  # the bars stand beside the shares

    def cells(row: CoveredRow) -> tuple[str, ...]:
        return (*row.cells[:at], *((_bar(row, most),) if bars else ()), *row.cells[at:])

    heads = (*found.heads[:at], *((f"{FULL} adapted",) if bars else ()), *found.heads[at:])
    sections: list[Section] = [(heads, ())]
    sections += [((visible(place),), [cells(row) for row in rows]) for place, rows in found.places]
    yield from table(sections, right=frozenset({1, 2, len(heads) - 3, len(heads) - 2}), wide=48)


def _bar(row: CoveredRow, most: float) -> str:
    """As long as the part of the parameters, filled as far as it is adapted; what is there at all is seen."""
    if not row.part:
        return ""
    long = max(1, round(BAR * row.part / most))
    filled = round(long * row.adapted / row.part)
    if 0 < row.adapted < row.part and long > 1:
        filled = min(max(filled, 1), long - 1)
    return FULL * filled + EMPTY * (long - filled)


def _rows(coverage: Coverage, total: int, tower: str, *, several: bool) -> Iterator[CoveredRow]:
    """One row per adapter that has any of these layers; outside stacks, they are called by their place in `tower`."""
    name = coverage.name if coverage.stack else coverage.name.removeprefix(f"{tower}.")
    sort = visible(name), count(coverage.parameters), share(coverage.parameters, total)
    parts = coverage.parameters / max(total, 1), coverage.adapted_parameters / max(total, 1)
    every = len(coverage.layers)
    if not coverage.carried:
        yield CoveredRow((*sort, *(("",) if several else ()), f"0/{every}", "", ""), *parts)
    for at, carried in enumerate(coverage.carried):
        adapter = (visible(carried.adapter),) if several else ()
        ranks = ",".join(map(str, carried.ranks))
        cells = *(("", "", "") if at else sort), *adapter, f"{carried.layers}/{every}", ranks, brief_ranges(carried.indices, gap=", ")
        yield CoveredRow(cells) if at else CoveredRow(cells, *parts)
