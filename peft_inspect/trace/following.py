"""A pass at the height of the data flow: cuts, unused outputs, and which calls reach the loss."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.records import GraphCut, Subject, Trace
from peft_inspect.run.graph import let_go
from peft_inspect.run.runs import forward, own_copy
from peft_inspect.run.undisturbed import undisturbed
from peft_inspect.structure.source.lines import Line, source
from peft_inspect.trace.calls import Call, Calls
from peft_inspect.trace.flow import DataFlow, Event, flattened
from peft_inspect.trace.functions import CustomFunctions
from peft_inspect.trace.grad_mode import GradSwitches, opened, replaced_checkpoint
from peft_inspect.trace.operations import Operations
from peft_inspect.trace.slices import Slice
from peft_inspect.trace.threads import following_threads, propagated_from
from peft_inspect.trace.values import moves_loss

if TYPE_CHECKING:
    from peft_inspect.run.layers import AdapterLayers

_JOINS = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack"})  # of several parts, the rest is what is used
Reaches = dict[int, bool | None]  # call → whether its output flows into the loss


@let_go()
def followed(trace: Trace, subject: Subject, layers: AdapterLayers, inputs: Mapping[str, Any]) -> Trace:
    """The trace with what the data flow of one more run shows."""
    with undisturbed(subject.model) as guard:
        seen = _run(subject, layers, inputs, Operations(guard))
    return concluded(trace, layers, seen, lambda paths: _flows(trace, subject, inputs, paths))


@dataclass(frozen=True)
class Seen:
    """What the data flow of one run shows."""

    calls: tuple[Call, ...]  # of the forward
    reaches: Reaches
    flow: DataFlow
    data: Slice
    functions: CustomFunctions


class Following:
    """The watchers of a run at the height of its data flow, whoever drives it."""

    def __init__(self, calls: Calls, flow: DataFlow) -> None:
        self.calls, self.flow = calls, flow
        self.functions = CustomFunctions()
        self._ends: dict[int, list[Event | None]] = {}
        self._in_forward: tuple[Call, ...] = ()

    def begin(self) -> None:
        """Note where the outputs of adapter layers come from."""
        self.calls.on_output = lambda call, outputs: self._ends.setdefault(call.order, []).extend(_events(self.flow, outputs))

    def forward_ended(self) -> None:
        """What runs again in the backward says nothing of the forward."""
        self._in_forward = tuple(call for call in self.calls.calls if call.phase == "forward")
        self.calls.on_output = None

    def seen(self, *losses: torch.Tensor) -> Seen:
        """After the backward of each of these."""
        data = Slice(self.flow, losses, self.functions.again)
        reaches = {call.order: _any_reaches(data, self._ends.get(call.order, [])) for call in self._in_forward}
        return Seen(self._in_forward, reaches, self.flow, data, self.functions)


def _beside(trace: Trace, cut: GraphCut) -> GraphCut | None:
    """The cut without layers whose gradients are known to become zero elsewhere: what is detached beside their way is no cut of theirs."""
    born = {path for birth in trace.zero_births for path in birth.layers}
    left = tuple(layer for layer in cut.layers if layer not in born)
    return cut if cut.kind in ("zero-derivative", "non-differentiable") else replace(cut, layers=left) if left else None


def concluded(trace: Trace, layers: AdapterLayers, seen: Seen, flows: Callable[[Iterable[str]], bool] | None) -> Trace:
    """The trace with what the data flow shows.

    `flows` tells whether what some layers compute has any effect on the loss. Where no other run can be made to ask, values that
    leave torch are the cause only for layers for which there is no other.
    """
    layers_of: dict[int, set[str]] = {}
    for layer in trace.structure.adapter_layers:
        for path in layer.parameters:
            layers_of.setdefault(id(layers.parameters[path]), set()).add(layer.path)
    wanted = frozenset(layer.path for layer in trace.dead) | trace.zero_for_good
    calls, reaches, flow, data = seen.calls, dict(seen.reaches), seen.flow, seen.data
    cuts = data.cuts(layers_of, wanted, _perhaps_through_python(trace, wanted, layers, calls, reaches, data))
    cuts = tuple(kept for cut in cuts if (kept := _beside(trace, cut)) is not None)
    line = data.loss_made_from() if not trace.loss.has_graph else None
    if flows is None:
        cuts = _certain(cuts)
    elif trace.loss.value is not None:
        cuts = tuple(kept for cut in cuts if (kept := _in_effect(trace, flows, cut)) is not None)
    out = {layer for cut in cuts if _leaves_torch(cut) for layer in cut.layers}
    for call in calls:
        if layers.path[call.layer] in out:
            reaches[call.order] = reaches[call.order] or None  # its values take the way through Python
    marked = trace.calls
    if [call.path for call in trace.calls if call.phase == "forward"] == [layers.path[call.layer] for call in calls]:
        marked = tuple(replace(call, reaches_loss=reaches.get(call.order)) for call in trace.calls)  # both runs made the same calls
    marked_trace = replace(trace, calls=marked, loss=replace(trace.loss, source=source(line)))
    left = wanted - {layer for cut in cuts for layer in cut.layers}
    idle = _read_for_nothing(trace, layers, flow, data)
    kept_back = _kept_back(seen.functions, layers_of, left)
    left -= {layer for cut in kept_back for layer in cut.layers}
    unused = frozenset(path for path in left if _is_unused(marked_trace, path, idle.get(path)))
    untraced: tuple[GraphCut, ...] = ()
    if flows is not None and trace.loss.value is not None:
        joined = {path for birth in trace.zero_births if birth.operation in _JOINS for path in birth.layers} - unused
        moving = _moving(flows, [*unused, *joined, *(path for path in left - unused if _trains(trace, path))])
        unused = (unused | joined) - moving
        untraced = _untraced(data, moving - joined)
    return replace(marked_trace, unused=unused, cuts=(*cuts, *kept_back, *untraced))


def _certain(cuts: tuple[GraphCut, ...]) -> tuple[GraphCut, ...]:
    """Without the layers of doubtful cuts for which there is a certain one: numbers are taken out of torch to be logged as well."""
    sure = frozenset(layer for cut in cuts if not _leaves_torch(cut) for layer in cut.layers)
    kept = (replace(cut, layers=tuple(layer for layer in cut.layers if layer not in sure)) if _leaves_torch(cut) else cut for cut in cuts)
    return tuple(cut for cut in kept if cut.layers)


def _run(subject: Subject, layers: AdapterLayers, inputs: Mapping[str, Any], operations: Operations) -> Seen:
    """One forward, and the backward where it runs more of the model."""
    batch = own_copy(inputs)
    tensors = [value for value in flattened((batch,)) if isinstance(value, torch.Tensor)]
    switches = GradSwitches()
    calls = Calls(layers, switches)
    flow = DataFlow([*subject.model.parameters(), *subject.model.buffers(), *tensors], switches, layers.base_weights)
    following = Following(calls, flow)
    with ExitStack() as stack:
        for watcher in (switches.watching(), calls.watching(), replaced_checkpoint(opened), following.functions.watching(), operations):
            stack.enter_context(watcher)
        stack.enter_context(flow.watching())
        stack.enter_context(following_threads(propagated_from(switches, calls, operations, flow)))
        following.begin()
        loss = forward(subject, batch).tensor
        following.forward_ended()
        following.functions.run_backward(subject, loss)
    return following.seen(loss)


def _in_effect(trace: Trace, flows: Callable[[Iterable[str]], bool], cut: GraphCut) -> GraphCut | None:
    """The cut, without layers whose data does not flow through it after all; None where none is left.

    Numbers are taken out of torch to be logged as well. And a layer that is connected to the loss and gets zeros may be
    multiplied by a zero further on: what is detached beside its way, a maximum that keeps a softmax stable, is no fault.
    """
    connected = trace.zero_for_good if cut.kind != "zero-derivative" else frozenset()
    doubtful = cut.layers if _leaves_torch(cut) else tuple(layer for layer in cut.layers if layer in connected)
    if not doubtful or flows(doubtful):
        return cut
    left = tuple(layer for layer in cut.layers if layer not in doubtful)
    return replace(cut, layers=left) if left else None


def _perhaps_through_python(
    trace: Trace, wanted: frozenset[str], layers: AdapterLayers, calls: tuple[Call, ...], reaches: Reaches, data: Slice
) -> frozenset[str]:
    """Layers whose values may reach the loss as numbers: some came in from outside torch, or nothing of theirs reaches it inside."""
    if data.from_values or trace.loss.value is None:
        return wanted if data.from_values else frozenset()
    return wanted - {layers.path[call.layer] for call in calls if reaches[call.order] is not False}


def _flows(trace: Trace, subject: Subject, inputs: Mapping[str, Any], paths: Iterable[str]) -> bool:
    """Whether what these layers compute has any effect on the loss."""
    layers = [layer for layer in trace.structure.adapter_layers if layer.active and layer.path in set(paths)]
    return moves_loss(subject, inputs, layers)


def _leaves_torch(cut: GraphCut) -> bool:
    """Whether values went where torch does not see them; only a run with other weights tells whether they come back."""
    return cut.through_python or cut.kind in ("escape", "raw-memory")


def _trains(trace: Trace, path: str) -> bool:
    """Whether a dead layer ran so that it could have trained."""
    rows = [layer for layer in trace.dead if layer.path == path]
    return any(trace.structure.trainable(layer) and trace.training_calls(layer) for layer in rows)


def _moving(flows: Callable[[Iterable[str]], bool], paths: Collection[str]) -> frozenset[str]:
    """Of these layers, those whose weights have an effect on the loss, told apart by halves: mostly none has."""
    if not paths or not flows(paths):
        return frozenset()
    if len(paths) == 1:
        return frozenset(paths)
    ordered = sorted(paths)
    halves = ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]
    return frozenset[str]().union(*(_moving(flows, half) for half in halves))


def _untraced(data: Slice, layers: frozenset[str]) -> tuple[GraphCut, ...]:
    """Where what these layers compute came back to torch, as a tensor that no operation made out of it."""
    if not layers:
        return ()
    came = min(data.from_values, key=lambda event: event.order, default=None)
    return (GraphCut("untraced", tuple(sorted(layers)), came.name if came else "", source(came.line if came else None)),)


def _events(flow: DataFlow, tensors: Iterable[Any]) -> list[Event | None]:
    return [flow.event_of(tensor) for tensor in tensors if isinstance(tensor, torch.Tensor)]


def _any_reaches(data: Slice, events: list[Event | None]) -> bool | None:
    answers = [data.depends_on(event) for event in events]
    if True in answers:
        return True
    return None if None in answers or not answers else False


def _read_for_nothing(trace: Trace, layers: AdapterLayers, flow: DataFlow, data: Slice) -> dict[str, bool]:
    """Whether nothing that was made of the base weight flows into the loss, for layers whose base weight was read outside them."""
    ends: dict[str, list[Event]] = {}
    for key, owners in layers.base_weights.items():
        for layer, _ in owners:
            ends.setdefault(layers.path[layer], []).extend(flow.reads[key])
    return {path: bool(ends.get(path)) and data.stays_inside(ends[path]) for path in trace.read_outside}


def _is_unused(trace: Trace, path: str, read_for_nothing: bool | None) -> bool:
    calls = [call.reaches_loss is False for call in trace.calls_of.get(path, ()) if call.carries]
    ends = calls if read_for_nothing is None else [*calls, read_for_nothing]
    return bool(ends) and all(ends)


def _kept_back(functions: CustomFunctions, layers_of: Mapping[int, set[str]], wanted: frozenset[str]) -> tuple[GraphCut, ...]:
    """Layers whose gradient ends in a custom autograd function that returns none, by the line that calls it."""
    found: dict[tuple[str, Line | None, Line | None], set[str]] = {}
    for name, line, called, leaves in functions.silent:
        found.setdefault((name, line, called), set()).update(layer for leaf in leaves for layer in layers_of.get(leaf, ()))
    return tuple(
        GraphCut(
            "no-gradient-returned",
            tuple(sorted(of_function & wanted)),
            name,
            source(line or called),
            called=source(called) if line else None,
        )
        for (name, line, called), of_function in found.items()
        if of_function & wanted
    )
