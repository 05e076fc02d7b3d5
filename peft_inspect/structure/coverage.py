"""Coverage the other way round: per sort of block, which layers and expert parameters carry an adapter and which do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import nn

from peft_inspect.records import AdapterLayerInfo, Carried, Coverage, Tower
from peft_inspect.structure.bare import BareModel, output_layer
from peft_inspect.structure.kinds import CONVOLUTIONS, LINEARS, expert_weights, holds_experts
from peft_inspect.structure.places import Places
from peft_inspect.structure.quantization import is_packed_linear, weight_count
from peft_inspect.structure.source.reads import reads_of_class

Kind = Literal["linear", "experts", "embedding", "conv", "parameter"]
_EXPERT_INDEX = re.compile(r"(expert[^.]*)\.\d+")


class _Sort(NamedTuple):
    """What makes two layers the same sort."""

    tower: str
    stack: str
    block: str
    part: str
    name: str
    kind: Kind
    routes: bool
    head: bool
    read: bool


@dataclass
class _Tally:
    """Layers of one sort: all of them, those with any adapter, those with one adapter."""

    layers: list[str] = field(default_factory=list)
    indices: dict[int, None] = field(default_factory=dict)
    parameters: int = 0

    def add(self, path: str, block: int | None, count: int) -> None:
        self.layers.append(path)
        self.parameters += count
        if block is not None:
            self.indices[block] = None


@dataclass
class _Tallies:
    every: _Tally = field(default_factory=_Tally)
    adapted: _Tally = field(default_factory=_Tally)
    carried: dict[str, _Tally] = field(default_factory=dict)
    ranks: dict[str, dict[int, None]] = field(default_factory=dict)

    def add(self, path: str, block: int | None, count: int, rows: Iterable[AdapterLayerInfo]) -> None:
        """One layer, and what it carries: one row per adapter."""
        own = {row.adapter: row for row in rows}
        for tally in (self.every, *([self.adapted] if own else []), *(self.carried.setdefault(name, _Tally()) for name in own)):
            tally.add(path, block, count)
        for name, row in own.items():
            ranks = self.ranks.setdefault(name, {})
            if row.r is not None:
                ranks[row.r] = None

    def by_adapter(self) -> Iterator[Carried]:
        for name, tally in self.carried.items():
            yield Carried(name, len(tally.layers), tuple(tally.indices), tuple(sorted(self.ranks[name])), tally.parameters)


def coverage_of(
    bare: BareModel, rows: Iterable[AdapterLayerInfo], towers: tuple[Tower, ...], routers: frozenset[str]
) -> Iterator[Coverage]:
    """One row per sort of layer, in the order of the model. `routers` are live paths."""
    built: dict[tuple[str, str | None], list[AdapterLayerInfo]] = {}
    for row in rows:
        if row.path in bare.name_of:
            built.setdefault((row.name, row.parameter_name), []).append(row)
    raw: dict[str, list[str]] = {}  # modules that are no layers, and their parameters that are adapted as they are
    for name, parameter in built:
        if parameter is not None:
            raw.setdefault(name, []).append(parameter)
    tallies: dict[_Sort, _Tallies] = {}
    places = Places(bare, towers)
    head = output_layer(bare)
    for name, module in bare.modules.items():
        kind = _kind(module) or ("parameter" if name in raw else None)
        if kind is None:
            continue
        place, live = places.of(name), bare.live[name]
        owner: Any = type(bare.modules[name.rpartition(".")[0]])
        for parameter, count in _weights(module, kind, raw.get(name, ())):
            inner = place.inner if place else name
            sort = _Sort(
                tower=places.tower(live),
                stack=bare.live.get(place.stack, "") if place else "",
                block=type(bare.modules[f"{place.stack}.{place.block}"]).__name__ if place else "",
                part=type(bare.modules[name if parameter else name.rpartition(".")[0]]).__name__,
                name=_general(f"{inner}.{parameter}" if parameter else inner),
                kind=kind,
                routes=live in routers or live.rpartition(".")[0] in routers,
                head=module is head,
                read=name.rpartition(".")[2] in reads_of_class(owner),
            )
            keys = [(name, parameter), (name, None)] + ([] if parameter else [(name, own) for own in _own_weights(module)])
            carried = [row for key in keys for row in built.get(key, ())]
            tallies.setdefault(sort, _Tallies()).add(live, place.block if place else None, count, carried)
    for sort, tally in tallies.items():
        yield Coverage(
            *sort[:6],
            layers=tuple(tally.every.layers),
            adapted=tuple(tally.adapted.layers),
            indices=tuple(tally.every.indices),
            adapted_indices=tuple(tally.adapted.indices),
            parameters=tally.every.parameters,
            adapted_parameters=tally.adapted.parameters,
            carried=tuple(tally.by_adapter()),
            routes=sort.routes,
            head=sort.head,
            read=sort.read,
        )


def _general(name: str) -> str:
    """One name for the same layer of all experts."""
    return _EXPERT_INDEX.sub(r"\1.*", name) if "expert" in name else name


def _kind(module: nn.Module) -> Kind | None:
    if isinstance(module, (*LINEARS, nn.MultiheadAttention)) or is_packed_linear(module):
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, CONVOLUTIONS):
        return "conv"
    return "experts" if holds_experts(module) else None


def _weights(module: nn.Module, kind: Kind, raw: Iterable[str]) -> Iterator[tuple[str | None, int]]:
    """Expert parameters one by one, and the `raw` ones of what is no layer; of every other layer all weights together."""
    if kind == "parameter":
        yield from ((name, module.get_parameter(name).numel()) for name in raw)
    elif kind == "experts":
        yield from ((name, value.numel()) for name, value in expert_weights(module).items())
    else:
        yield None, weight_count(module)


def _own_weights(module: nn.Module) -> Iterator[str]:
    return (name for name, value in module._parameters.items() if value is not None)
