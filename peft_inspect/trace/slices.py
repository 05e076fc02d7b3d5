"""Where the way from a dead adapter layer to the loss ends, cut by cut.

Walking back from the loss over the recorded data flow, a *dead* tensor is one that has a graph the loss does not
reach; the event that takes a dead tensor in and lets data out that is not dead is the cut.
"""

from __future__ import annotations

from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING

from peft_inspect.records import CutKind, GraphCut, Source
from peft_inspect.run.graph import Node, leaves, upstream
from peft_inspect.structure.source.lines import Line, source
from peft_inspect.trace.flow import DETACHING, FROM_VALUES, PARAMETER, RAW, SAMPLE, DataFlow, Event, Operand

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

Cut = tuple[CutKind, str, Line | Source | None]
CHECKPOINT: CutKind = "checkpoint-without-grad-input"


class Slice:
    """What of the recorded flow the loss depends on, and where dead tensors leave it.

    A step may have several losses, the last of which speaks for all. `again` are the outputs of what custom autograd functions
    ran once more in the backward: gradients start from these too.
    """

    def __init__(self, flow: DataFlow, losses: Sequence[Tensor], again: Iterable[Tensor] = ()) -> None:
        self._alive = upstream([tensor.grad_fn for tensor in (*losses, *again)], through_zero=False)
        self._loss = flow.event_of(losses[-1])
        self.events: set[Event] = set()
        self._cuts: list[tuple[Event, Operand, int]] = []  # with how many cuts lie between them and the loss
        self.from_values: list[Event] = []  # events that brought in values from outside torch
        self._data = events_before(map(flow.event_of, losses))
        operands = (operand for event in self._data for operand in event.operands)
        hidden = any(operand.event is None and operand.node is not None for operand in operands)  # by a custom autograd function
        self.opaque = self._loss is None or hidden
        if self._loss is not None:
            self._walk(self._loss, self.events, self._cuts)
        for event in map(flow.event_of, (*losses[:-1], *again)):
            if event is not None:
                self._walk(event, self.events, self._cuts)
        self._events = flow.events
        self._escapes = [event for event in flow.events if event.escaped]

    def _walk(self, start: Event, seen: set[Event], cuts: list[tuple[Event, Operand, int]]) -> None:
        """Walk back from `start`. Behind the cuts the walk goes on, with what is connected to them in the place of the loss."""
        pending, alive, behind = [start], self._alive, 0
        while pending:
            ended: list[Operand] = []
            while pending:
                event = pending.pop()
                if event in seen:
                    continue
                seen.add(event)
                if event.name in FROM_VALUES or event.name == RAW or any(operand.foreign for operand in event.operands):
                    self.from_values.append(event)
                pending.extend(event.scalars)
                for operand in event.operands:
                    if _is_dead(operand, event, alive):
                        cuts.append((event, operand, behind))
                        ended.append(operand)
                    elif operand.event is not None:
                        pending.append(operand.event)
            alive = alive | upstream([operand.node for operand in ended], through_zero=False)
            pending = [operand.event for operand in ended if operand.event is not None]
            behind += 1

    def stays_inside(self, events: Iterable[Event]) -> bool:
        """Whether data of these events flows neither into the loss nor out of torch, from where it could come back."""
        return not self.opaque and all(event not in self._data and event not in self._left_torch for event in events)

    @cached_property
    def _left_torch(self) -> set[Event]:
        """Events whose data went into numbers or arrays."""
        return events_before(self._escapes)

    def depends_on(self, event: Event | None) -> bool | None:
        """Whether data of `event` flows into the loss; None where part of the flow is hidden."""
        if event in self._data:
            return True
        return None if self.opaque or event is None else False

    def cuts(self, parameters: Mapping[int, set[str]], wanted: frozenset[str], through_python: frozenset[str]) -> tuple[GraphCut, ...]:
        """The cuts that part `wanted` adapter layers from the loss.

        `parameters` gives the layers of a parameter's `id`: some tuners share one among several. `through_python`
        are the layers whose values may take the way through Python.
        """
        found = self._without_deliberate(_grouped(self._cuts, parameters, wanted))
        rest = through_python - {layer for layers in found.values() for layer in layers}
        python = self._through_python(parameters, rest) if rest else {}
        deliberate = {layer for (kind, _, _), layers in found.items() if kind != "non-differentiable" for layer in layers}
        cuts = []
        for (kind, operation, line), layers in found.items():
            # a mask or an index computed on the way is no fault of its own where the values themselves are cut
            left = layers - deliberate if kind == "non-differentiable" else layers
            if left:
                cuts.append(GraphCut(kind, tuple(sorted(left)), operation, _source(line)))
        for (kind, operation, line), layers in python.items():
            cuts.append(GraphCut(kind, tuple(sorted(layers)), operation, _source(line), through_python=True))
        return tuple(cuts)

    def _without_deliberate(self, found: dict[Cut, set[str]]) -> dict[Cut, set[str]]:
        """Without detaches for what is trained by itself, as a value head is, where there is another: that one is the fault."""
        if len(found) < 2:
            return found
        apart = {
            (_kind(event), event.name, event.line) for event, _, _ in self._cuts if event.name in DETACHING and self._feeds_trained(event)
        }
        others = {layer for cut, layers in found.items() if cut not in apart for layer in layers}
        return {cut: layers - others if cut in apart else layers for cut, layers in found.items() if cut not in apart or layers - others}

    def _feeds_trained(self, event: Event) -> bool:
        """Whether the first that values of a cut meet on their way to the loss, of all that is trained, is a weight."""
        seen, pending = {event}, [event]
        while pending:
            for user in self._users.get(pending.pop(), ()):
                if user in seen:
                    continue
                seen.add(user)
                live = [operand for operand in user.operands if operand.requires_grad]
                if any(operand.leaf is not None for operand in live):
                    return True
                if not live:
                    pending.append(user)
        return False

    @cached_property
    def _users(self) -> dict[Event, list[Event]]:
        """Events by what they take in."""
        users: dict[Event, list[Event]] = {}
        for event in self._data:
            for operand in event.operands:
                if operand.event is not None:
                    users.setdefault(operand.event, []).append(event)
        return users

    def _through_python(self, parameters: Mapping[int, set[str]], wanted: frozenset[str]) -> dict[Cut, set[str]]:
        """Cuts where values left torch (NumPy, Python numbers); whether they came back in, the graph cannot tell."""
        last = max((event.order for event in self.from_values), default=len(self._escapes) and self._escapes[-1].order)
        last += sum(1 for _ in takewhile(lambda event: event.name == RAW, self._events[last + 1 :]))  # the addresses of one call
        cuts: list[tuple[Event, Operand, int]] = []
        for escape in self._escapes:
            if escape.order <= last and escape not in self.events:
                self._walk(escape, set(), cuts)
        found: dict[Cut, set[str]] = {}
        for (kind, operation, line), layers in _grouped(cuts, parameters, wanted).items():
            # a detach in front of `.numpy()` is no fault of its own: what leaves torch loses its graph in any case
            found.setdefault((kind if kind in ("non-differentiable", "raw-memory") else "escape", operation, line), set()).update(layers)
        return found

    def loss_made_from(self) -> Line | None:
        """The line that made a loss without a graph out of numbers, or out of a loss that had one; None where neither is so."""
        line, pending, seen = None, [(self._loss, True)], set[Event]()
        while pending:
            event, single = pending.pop()
            if event is None or any(operand.requires_grad and not operand.single for operand in event.operands):
                return None
            if event in seen:
                continue
            seen.add(event)
            if any(operand.requires_grad for operand in event.operands) or (single and event.name in FROM_VALUES):
                line = event.line
            else:
                pending += [(operand.event, operand.single) for operand in event.operands]
        return line


def _is_dead(operand: Operand, event: Event, alive: set[Node]) -> bool:
    if not operand.requires_grad or event.passes:
        return False
    if operand.node is not None:
        return operand.node not in alive
    return not event.grad_enabled or event.name in DETACHING  # a leaf used where gradients are off, or cut from its gradient


def _source(line: Line | Source | None) -> Source | None:
    return line if isinstance(line, Source) else source(line)


def _grouped(cuts: Iterable[tuple[Event, Operand, int]], parameters: Mapping[int, set[str]], wanted: frozenset[str]) -> dict[Cut, set[str]]:
    """The layers behind each cut: those for which it is the one nearest to the loss."""
    found: dict[Cut, set[str]] = {}
    nearest: dict[str, int] = {}
    for event, operand, behind in sorted(cuts, key=lambda cut: cut[2]):
        ids = leaves(upstream([operand.node])) if operand.node is not None else {operand.leaf}
        layers = {layer for key in ids if key is not None for layer in parameters.get(key, ())} & wanted
        layers = {layer for layer in layers if nearest.setdefault(layer, behind) == behind}
        if layers:
            outside = event.region if event.region is not None and event.region.inputs_require_grad is False else None
            cut = (_kind(event), event.name, event.line) if outside is None else (CHECKPOINT, outside.kind, outside.source)
            found.setdefault(cut, set()).update(layers)
    return found


def _kind(event: Event) -> CutKind:
    if event.name in DETACHING or event.name in FROM_VALUES or event.name == PARAMETER:
        return "detach"
    if event.name == RAW:
        return "raw-memory"
    if event.escaped:
        return "escape"
    if event.name == SAMPLE:
        return "non-differentiable"
    if not event.grad_enabled:
        return "no-grad-region"
    if event.no_backward:
        return "no-backward"
    return "zero-derivative" if event.floating else "non-differentiable"


def events_before(starts: Iterable[Event | None]) -> set[Event]:
    """These events and all whose data flows into them, as tensors or as Python numbers."""
    found, pending = set[Event](), [event for event in starts if event is not None]
    while pending:
        event = pending.pop()
        if event not in found:
            found.add(event)
            pending.extend(event.scalars)
            pending.extend(operand.event for operand in event.operands if operand.event is not None)
    return found
