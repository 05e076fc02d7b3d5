"""The target table: what each entry of the LoRA config reached, and what it missed."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from peft_inspect.formats.layout import layer_indices
from peft_inspect.formats.names import ranges, visible
from peft_inspect.formats.numbers import count
from peft_inspect.formats.screen import Line
from peft_inspect.formats.table import table
from peft_inspect.formats.wrappers import chains
from peft_inspect.records import AdapterInfo, Coverage, Structure, Target


def target_lines(structure: Structure) -> Iterator[Line]:
    """One table per adapter."""
    for adapter in structure.adapters:
        yield Line(Text(visible(f"targets of adapter {adapter.name} ({adapter.type})"), style="bold"))
        if not adapter.targets:
            yield Line(Text("its config names no targets"), 2)
            continue
        rows = [target_row(target, structure) for target in adapter.targets]
        yield from table(("field", "entry", "modules", "layers", "towers"), rows, right=frozenset({2}))
        yield from _remarks(adapter, structure)


def coverage_lines(structure: Structure) -> Iterator[Line]:
    """The other way round: which layers there are in each tower, and how many of each sort carry an adapter."""
    shown = [coverage for coverage in structure.coverage if coverage.adapted or coverage.kind in ("linear", "experts")]
    if not shown:
        return
    total, adapted = sum(coverage.parameters for coverage in shown), sum(coverage.adapted_parameters for coverage in shown)
    yield Line(Text(f"covered: layers with {adapted / max(total, 1):.0%} of {count(total)} parameters carry an adapter", style="bold"))
    inside = chains(structure)[0].base.path + "."
    places: dict[tuple[str, str], list[Coverage]] = {}
    for coverage in shown:
        places.setdefault((coverage.tower.removeprefix(inside), coverage.block), []).append(coverage)
    for (tower, block), rows in places.items():
        yield Line(Text(visible(f"{tower or 'outside towers'} {block}".rstrip()), style="dim"), 2)
        yield from table(
            ("layer", "adapted", "params", "at layers"), [_coverage_row(row) for row in rows], right=frozenset({1, 2}), indent=4
        )


def _coverage_row(coverage: Coverage) -> tuple[str, ...]:
    counted = f"{len(coverage.adapted)}/{len(coverage.layers)}"
    return visible(coverage.name), counted, count(coverage.parameters), ranges(coverage.adapted_indices)


def target_row(target: Target, structure: Structure) -> tuple[str, ...]:
    """Field, entry, modules reached, layer indices, modules per tower."""
    inside = chains(structure)[0].base.path + "."
    towers = ", ".join(f"{tower.removeprefix(inside) or 'outside towers'} {number}" for tower, number in target.by_tower.items())
    layers = ranges(layer_indices(target.matched, structure))
    return tuple(visible(cell) for cell in (target.field, target.entry, str(len(target.matched)), layers, towers))


def _remarks(adapter: AdapterInfo, structure: Structure) -> Iterator[Line]:
    """What an entry did not reach, and names that exist."""
    for target in adapter.targets:
        if target.missed:
            missed = ranges(layer_indices(target.missed, structure)) or ", ".join(target.missed[:3])
            yield Line(Text(visible(f"{target.entry} misses layers {missed}"), style="yellow"), 2)
        if target.dropped:
            yield Line(
                Text(visible(f"{target.entry} matches {len(target.dropped)} modules that another field drops again"), style="yellow"), 2
            )
        if not target.matched and target.closest:
            yield Line(Text(visible(f"{target.entry} matches nothing; the closest names are {', '.join(target.closest)}"), style="red"), 2)
