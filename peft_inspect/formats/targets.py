"""The target table: what each entry of the LoRA config reached, and what it missed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from rich.text import Text

from peft_inspect.formats.layout import layer_indices, place_of
from peft_inspect.formats.names import brief_ranges, is_index, visible
from peft_inspect.formats.screen import Line
from peft_inspect.formats.table import Section, table
from peft_inspect.formats.wrappers import chains
from peft_inspect.records import AdapterInfo, ConfigEntry, Structure

_HEADS, _CLASSIFY = ("classifier", "score"), ("SEQ_CLS", "TOKEN_CLS")
HEADS = ("field", "entry", "modules", "where", "layers")


def target_lines(structure: Structure) -> Iterator[Line]:
    """One table per adapter."""
    for adapter in structure.adapters:
        yield Line(Text(visible(f"targets of adapter {adapter.name} ({adapter.type}): {_trained(adapter)}"), style="bold"))
        if not adapter.targets:
            yield Line(Text("its config names no targets"), 2)
            continue
        shown = shown_targets(adapter)
        fields = dict.fromkeys(target.field for target in shown)
        yield from table([_section(field, shown, structure) for field in fields], right=frozenset({1}), wide=24)
        yield from _remarks(adapter, structure)


def shown_targets(adapter: AdapterInfo) -> tuple[ConfigEntry, ...]:
    """The entries of its config; those that name one module each and differ in an index, as one: `layers.*.self_attn.q_proj`."""
    alike: dict[tuple[str, str], list[ConfigEntry]] = {}
    for target in adapter.targets:
        if (
            target.field == "modules_to_save"
            and not target.matched
            and target.entry in _HEADS
            and str(adapter.config.get("task_type")) in _CLASSIFY
        ):
            continue  # PEFT asks for both names itself, and a model has one of them
        plain = len(target.matched) == 1 and any(map(is_index, target.entry.split(".")))
        names = ("*" if plain and is_index(name) else name for name in target.entry.split("."))
        alike.setdefault((target.field, ".".join(names)), []).append(replace(target, missed=()) if plain else target)
    return tuple(
        same[0] if len(same) == 1 else replace(same[0], entry=entry, matched=tuple(target.matched[0] for target in same))
        for (_, entry), same in alike.items()
    )


def _section(field: str, shown: Iterable[ConfigEntry], structure: Structure) -> Section:
    """The entries of one field."""
    return (field, *HEADS[2:]), [row[1:] for target in shown if target.field == field for row in target_rows(target, structure)]


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
        yield *(entry if len(reached) == 1 else ("", "", str(len(paths)))), where, brief_ranges(layer_indices(paths, structure), gap=", ")


def _trained(adapter: AdapterInfo) -> str:
    """What it costs to train: its parameters as they were built."""
    if adapter.trainable == adapter.parameters:
        return f"{adapter.parameters:,} parameters, all trainable"
    return f"{adapter.parameters:,} parameters, {adapter.trainable:,} trainable"


def _remarks(adapter: AdapterInfo, structure: Structure) -> Iterator[Line]:
    """What an entry did not reach, and names that exist."""
    for target in shown_targets(adapter):
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
    return f"layer{'' if len(indices) == 1 else 's'} {brief_ranges(indices, gap=', ')}"
