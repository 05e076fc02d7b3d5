"""The target table: what each entry of the LoRA config reached, and what it missed."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from peft_inspect.formats.layout import layer_indices, place_of
from peft_inspect.formats.names import ranges, visible
from peft_inspect.formats.screen import Line
from peft_inspect.formats.table import Section, table
from peft_inspect.formats.wrappers import chains
from peft_inspect.records import AdapterInfo, ConfigEntry, Structure

HEADS = ("field", "entry", "modules", "where", "layers")


def target_lines(structure: Structure) -> Iterator[Line]:
    """One table per adapter."""
    for adapter in structure.adapters:
        yield Line(Text(visible(f"targets of adapter {adapter.name} ({adapter.type}): {_trained(adapter)}"), style="bold"))
        if not adapter.targets:
            yield Line(Text("its config names no targets"), 2)
            continue
        fields = dict.fromkeys(target.field for target in adapter.targets)
        yield from table([_section(field, adapter, structure) for field in fields], right=frozenset({1}), wide=24)
        yield from _remarks(adapter, structure)


def _section(field: str, adapter: AdapterInfo, structure: Structure) -> Section:
    """The entries of one field."""
    return (field, *HEADS[2:]), [row[1:] for target in adapter.targets if target.field == field for row in target_rows(target, structure)]


def target_rows(target: ConfigEntry, structure: Structure) -> Iterator[tuple[str, ...]]:
    """Field, entry, modules reached, tower and class of block, layer indices; of several blocks, a row for each below the total."""
    inside = chains(structure)[0].base.path + "."
    types = {stack.path: dict(zip(stack.indices, stack.types, strict=True)) for tower in structure.towers for stack in tower.stacks}
    reached: dict[tuple[str, str], list[str]] = {}
    for path in target.matched:
        place = place_of(path, types)
        block = types[place.stack].get(place.block, "") if place else ""
        reached.setdefault((structure.tower_of(path), block), []).append(path)
    entry = visible(target.field), visible(target.entry), str(len(target.matched))
    if len(reached) != 1:
        yield *entry, "", ""
    for (tower, block), paths in reached.items():
        where = visible(f"{tower.removeprefix(inside) or 'outside towers'} {block}".rstrip())
        yield *(entry if len(reached) == 1 else ("", "", str(len(paths)))), where, ranges(layer_indices(paths, structure), gap=", ")


def _trained(adapter: AdapterInfo) -> str:
    """What it costs to train: its parameters as they were built."""
    if adapter.trainable == adapter.parameters:
        return f"{adapter.parameters:,} parameters, all trainable"
    return f"{adapter.parameters:,} parameters, {adapter.trainable:,} trainable"


def _remarks(adapter: AdapterInfo, structure: Structure) -> Iterator[Line]:
    """What an entry did not reach, and names that exist."""
    for target in adapter.targets:
        if target.missed:
            yield Line(Text(visible(f"{target.entry} misses {_missed(target, structure)}"), style="yellow"), 2)
        if target.dropped:
            yield Line(
                Text(visible(f"{target.entry} matches {len(target.dropped)} modules that another field drops again"), style="yellow"), 2
            )
        if not target.matched and target.closest:
            closest = f"the closest {'name is' if len(target.closest) == 1 else 'names are'} {', '.join(target.closest)}"
            yield Line(Text(visible(f"{target.entry} matches nothing; {closest}"), style="red"), 2)


def _missed(target: ConfigEntry, structure: Structure) -> str:
    indices = set(layer_indices(target.missed, structure))
    if not indices:
        return ", ".join(target.missed[:3])
    return f"layer{'' if len(indices) == 1 else 's'} {ranges(indices, gap=', ')}"
