"""Gradients by place: one row per kind of module in a stack of blocks, one column per block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from peft_inspect.formats.layout import place_of, stacks_of
from peft_inspect.formats.names import is_index
from peft_inspect.records import AdapterLayerInfo, GradientInfo, Trace

CellState = Literal["nonfinite", "none", "frozen", "not-run", "zero", "partial", "connected", "ok"]
WORST_FIRST: tuple[CellState, ...] = ("nonfinite", "none", "frozen", "not-run", "zero", "partial", "connected", "ok")


@dataclass(frozen=True)
class Cell:
    """What the adapter parameters of one kind of module in one block got. `norm`: L2, over all of them."""

    state: CellState
    norm: float | None = None
    layers: tuple[str, ...] = ()  # adapter layer paths
    arrived: int = 0  # parameters with a gradient
    total: int = 0

    @property
    def worse(self) -> tuple[int, float]:
        """Sorts the worst first: by state, then the smallest norm."""
        return WORST_FIRST.index(self.state), self.norm if self.norm is not None else math.inf


@dataclass(frozen=True)
class MapRow:
    """One kind of module of one stack."""

    stack: str  # path of the list of blocks; "" for modules outside of every list
    label: str  # path within the block, `*` for indices
    adapter: str
    cells: Mapping[int, Cell] = field(default_factory=dict)


@dataclass(frozen=True)
class GradientMap:
    """All rows, those of one stack together."""

    rows: tuple[MapRow, ...]

    @cached_property
    def norms(self) -> tuple[float, float] | None:
        """The smallest and the largest norm; None where no cell has one."""
        norms = [cell.norm for row in self.rows for cell in row.cells.values() if cell.norm]
        return (min(norms), max(norms)) if norms else None

    def level(self, norm: float) -> float:
        """Where a norm lies between the smallest (0) and the largest (1), on a log scale."""
        if self.norms is None or self.norms[0] == self.norms[1]:
            return 1.0
        low, high = (math.log10(bound) for bound in self.norms)
        return min(1.0, max(0.0, (math.log10(norm) - low) / (high - low))) if norm > 0 else 0.0


def gradient_map(trace: Trace) -> GradientMap:
    """The map of all adapters."""
    stacks = stacks_of(trace.structure)
    grouped: dict[tuple[str, str, str], dict[int, list[AdapterLayerInfo]]] = {}
    for layer in trace.structure.adapter_layers:
        place = place_of(layer.path, stacks)
        stack, block, inner = place or ("", 0, layer.path)
        label = ".".join("*" if is_index(name) else name for name in inner.split(".")) or layer.base_type
        if layer.parameter_name:
            label = f"{label}.{layer.parameter_name}"
        grouped.setdefault((stack, label, layer.adapter), {}).setdefault(block, []).append(layer)
    order = {stack: at for at, stack in enumerate(stacks)}
    keys = sorted(grouped, key=lambda key: order.get(key[0], len(order)))
    return GradientMap(tuple(MapRow(*key, {block: _cell(layers, trace) for block, layers in sorted(grouped[key].items())}) for key in keys))


def _cell(layers: Sequence[AdapterLayerInfo], trace: Trace) -> Cell:
    gradients = [trace.gradient[path] for layer in layers for path in layer.parameters if path in trace.gradient]
    arrived = [gradient for gradient in gradients if gradient.arrived]
    norms = [gradient.norm for gradient in arrived if gradient.norm is not None]
    norm = math.sqrt(sum(norm * norm for norm in norms)) if norms else None
    paths = tuple(layer.path for layer in layers)
    called = not trace.calls or any(path in trace.calls_of for path in paths)
    return Cell(_state(gradients, called=called, known=norm is not None), norm, paths, len(arrived), len(gradients))


def _state(gradients: Sequence[GradientInfo], *, called: bool, known: bool) -> CellState:
    """One state for several parameters. A zero that initialisation implies is no state of its own: its partner speaks."""
    states = {gradient.state for gradient in gradients}
    missing = states & {"none", "frozen"}
    if "nonfinite" in states:
        return "nonfinite"
    if states <= {"none", "frozen"}:
        return "frozen" if missing == {"frozen"} else "none" if called else "not-run"
    if missing:
        return "partial"
    if states <= {"zero", "zero-at-init"} and "zero" in states:
        return "zero"
    return "ok" if known else "connected"


def binned(cells: Mapping[int, Cell], bins: Iterable[Sequence[int]]) -> list[Cell | None]:
    """For each group of blocks the worst cell; None where none of them carries an adapter."""
    return [min((cells[block] for block in group if block in cells), key=lambda cell: cell.worse, default=None) for group in bins]
