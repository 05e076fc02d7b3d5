"""Coverage the other way round: per sort of block, which layers and expert parameters carry an adapter and which do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import nn

from peft_inspect.observe.bare import BareModel, output_layer
from peft_inspect.observe.kinds import CONVOLUTIONS, LINEARS, expert_weights, holds_experts
from peft_inspect.observe.places import Places
from peft_inspect.observe.quantization import is_packed_linear, weight_count
from peft_inspect.observe.weight_reads import weights_read
from peft_inspect.records import AdapterLayerInfo, Coverage, Tower

Kind = Literal["linear", "experts", "embedding", "conv"]
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
    layers: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    indices: dict[int, None] = field(default_factory=dict)
    adapted_indices: dict[int, None] = field(default_factory=dict)
    parameters: int = 0
    adapted_parameters: int = 0

    def add(self, path: str, block: int | None, count: int, *, adapted: bool) -> None:
        self.layers.append(path)
        self.parameters += count
        if block is not None:
            self.indices[block] = None
        if adapted:
            self.adapted.append(path)
            self.adapted_parameters += count
            if block is not None:
                self.adapted_indices[block] = None


def coverage_of(
    bare: BareModel, rows: Iterable[AdapterLayerInfo], towers: tuple[Tower, ...], routers: frozenset[str]
) -> Iterator[Coverage]:
    """One row per sort of layer, in the order of the model. `routers` are live paths."""
    built = {(row.name, row.parameter_name) for row in rows if row.path in bare.name_of}
    tallies: dict[_Sort, _Tally] = {}
    places = Places(bare, towers)
    head = output_layer(bare)
    for name, module in bare.modules.items():
        kind = _kind(module)
        if kind is None:
            continue
        place, live = places.of(name), bare.live[name]
        owner: Any = type(bare.modules[name.rpartition(".")[0]])
        for parameter, count in _weights(module, kind):
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
                read=name.rpartition(".")[2] in weights_read(owner),
            )
            keys = [(name, parameter), (name, None)] + ([] if parameter else [(name, own) for own in _own_weights(module)])
            adapted = any(key in built for key in keys)
            tallies.setdefault(sort, _Tally()).add(live, place.block if place else None, count, adapted=adapted)
    for sort, tally in tallies.items():
        yield Coverage(
            *sort[:6],
            layers=tuple(tally.layers),
            adapted=tuple(tally.adapted),
            indices=tuple(tally.indices),
            adapted_indices=tuple(tally.adapted_indices),
            parameters=tally.parameters,
            adapted_parameters=tally.adapted_parameters,
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


def _weights(module: nn.Module, kind: Kind) -> Iterator[tuple[str | None, int]]:
    """Expert parameters one by one; of every other layer all weights together."""
    if kind == "experts":
        yield from ((name, value.numel()) for name, value in expert_weights(module).items())
    else:
        yield None, weight_count(module)


def _own_weights(module: nn.Module) -> Iterator[str]:
    return (name for name, value in module._parameters.items() if value is not None)
