"""Where gradients become zero, or stop being finite: the first operation that takes something else and hands on nothing else.

The walk starts at the weights that get such gradients and goes up, towards the loss, through all that hands gradients on to
them. Where an operation takes a gradient of another kind, the fault is born there. Where what is handed on is of another
kind than what arrives, either a tensor hook has changed it, or several paths cancel each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from peft_inspect.records import Birth, Source
from peft_inspect.run.graph import Node
from peft_inspect.run.runs import backward, forward, own_copy
from peft_inspect.run.undisturbed import undisturbed
from peft_inspect.structure.source.lines import Line, source
from peft_inspect.trace.calls import Calls
from peft_inspect.trace.flow import Event, flattened
from peft_inspect.trace.functions import backward_line
from peft_inspect.trace.grad_mode import GradSwitches
from peft_inspect.trace.measured_flow import Edge, MeasuredFlow, Values
from peft_inspect.trace.operations import Operations
from peft_inspect.trace.slices import events_before
from peft_inspect.trace.threads import following_threads, propagated_from
from peft_inspect.walk import defined_in

if TYPE_CHECKING:
    from torch import Tensor, nn

    from peft_inspect.records import Subject
    from peft_inspect.run.layers import AdapterLayers
    from peft_inspect.run.tensors import WriteGuard

Lost = Literal["zero", "nonfinite"]
_LOST: Mapping[Lost, frozenset[Values]] = {"zero": frozenset({"zero", "none"}), "nonfinite": frozenset({"nonfinite"})}
_FULL_HOOK = "BackwardHookFunction"  # what torch puts around a module for its full backward hooks


@dataclass(frozen=True)
class _Found:
    """A birth, with the live objects."""

    how: Literal["operation", "hook", "cancellation"]
    event: Event | None
    node: Node


class Measured:
    """One run of the model, measured forwards and backwards."""

    def __init__(
        self, subject: Subject, layers: AdapterLayers, flow: MeasuredFlow, calls: Calls, batch: Mapping[str, Any], loss: Tensor
    ) -> None:
        self._subject, self._layers, self._calls, self._batch, self._loss = subject, layers, calls, batch, loss
        self.flow = flow

    def births(self, weights: Mapping[str, Iterable[Tensor]], lost: Lost) -> tuple[Birth, ...]:
        """Where the gradients of these weights, by adapter layer, become what they are; one birth per layer, the nearest to the loss."""
        groups: dict[_Found, list[str]] = {}
        for path, of_layer in weights.items():
            found = [birth for weight in of_layer for birth in self._walk(weight, _LOST[lost])]
            if found:
                groups.setdefault(max(found, key=lambda birth: birth.event.order if birth.event else -1), []).append(path)
        return tuple(self._record(found, tuple(paths)) for found, paths in groups.items())

    def _walk(self, weight: Tensor, lost: frozenset[Values]) -> Iterator[_Found]:
        """The births on every way from the loss to one weight."""
        flow, node = self.flow, self.flow.leaf.get(id(weight))
        pending: list[Edge] = [] if node is None else [(node, 0)]
        seen = set(pending)
        while pending:
            edge = pending.pop()
            if flow.took.get(edge[0], {}).get(edge[1], "none") not in lost:
                continue
            others = [(node, place) for node, place in flow.sources[edge] if flow.gave[node].get(place, "none") not in lost]
            lasting = lost is _LOST["nonfinite"] and len(others) < len(flow.sources[edge])  # NaN outlasts whatever is added to it
            if others and not lasting:
                if len(others) == 1 or self._has_hook(edge):
                    yield _Found("hook", flow.maker.get(others[0][0]), edge[0])
                else:
                    yield _Found("cancellation", self._join([node for node, _ in others]), edge[0])
                continue
            for above in [node for node, place in flow.sources[edge] if (node, place) not in others]:
                if any(values not in lost for values in flow.took[above].values()):
                    yield _Found("operation", flow.maker.get(above), above)
                else:
                    further = {(above, place) for place in flow.took[above]} - seen
                    seen |= further
                    pending += further

    def _join(self, nodes: list[Node]) -> Event | None:
        """The first event in which the ways of these nodes to the loss meet: what cancels there."""
        common: set[Event] | None = None
        for start in nodes:
            seen, pending = {start}, [start]
            while pending:
                node = pending.pop()
                above = {source for place in self.flow.took[node] for source, _ in self.flow.sources[node, place]} - seen
                seen |= above
                pending += above
            makers = {maker for node in seen if (maker := self.flow.maker.get(node)) is not None}
            common = makers if common is None else common & makers
        return min(common or (), key=lambda event: event.order, default=None)

    def _has_hook(self, edge: Edge) -> bool:
        return edge in self.flow.hooked_at or bool(getattr(getattr(edge[0], "variable", None), "_backward_hooks", None))

    def _record(self, found: _Found, layers: tuple[str, ...]) -> Birth:
        event, how = found.event, found.how
        operation = event.name if event is not None else found.node.name()
        line = event.line if event is not None else None
        if operation == _FULL_HOOK:
            how, operation, line = "hook", "a full backward hook", self._module_hook() or line
        elif how == "hook":
            operation, line = "a hook on the gradient of a tensor", self._tensor_hook(found.node) or line
        module = self._module_of(event)
        factor, factor_line, at = self._zero_factor(event) if how == "operation" and event is not None else ("", None, "")
        inside = all(any((place or "").startswith(path) for place in (module, at) if place) for path in layers) and how == "operation"
        own = backward_line(found.node) if how == "operation" and not factor else None
        called = source(line) if own is not None else None
        return Birth(how, layers, operation, source(own or line), module, factor, source(factor_line), inside, called)

    def constants(self) -> tuple[Source, ...]:
        """Lines that put a number in the place of what depends on the weights, where the loss is made of it."""
        ahead = events_before([self.flow.event_of(self._loss)])
        lines = (source(event.line) for event in self.flow.constants if event in ahead)
        return tuple(dict.fromkeys(line for line in lines if line is not None))

    def first_unsound(self) -> Birth | None:
        """The first event of the forward that makes NaN or inf out of what is finite."""
        infinite: Event | None = None  # made -inf out of finite operands: masks do so, and so do faults that turn into NaN further on
        for event, measures in self.flow.measures.items():
            if event.order >= self.flow.forward_events:
                break
            if infinite is None and not measures.finite and measures.given_finite:
                infinite = event
            if not measures.sound and (measures.given_sound or measures.unsound is not None):
                name = self._name(measures.unsound) if measures.unsound is not None else ""
                culprit = infinite if infinite is not None and not measures.given_finite and not name else event
                return Birth("operation", (), culprit.name, source(culprit.line), self._module_of(culprit), name)
        return None

    def _module_of(self, event: Event | None) -> str | None:
        measures = self.flow.measures.get(event) if event is not None else None
        return self._calls.path_of(measures.module) if measures is not None else None

    def _zero_factor(self, event: Event) -> tuple[str, Line | None, str]:
        """What is zero beside the gradient: in words, its line, and the module that made it."""
        seen = set[Event]()
        while event not in seen:
            seen.add(event)
            measures = self.flow.measures.get(event)
            if measures is None:
                break
            zeros = zip(measures.zeros, measures.zero_events, measures.zero_names, strict=True)
            named = (self._name(tensor) or (local and f"{local!r} as it comes in") for tensor, maker, local in zeros if maker is None)
            if name := next(filter(None, named), ""):
                return name, event.line, ""
            makers = [maker for maker in measures.zero_events if maker is not None]
            if not makers:
                if len(seen) == 1:
                    return ("the number 0", event.line, "") if measures.by_zero and event.name in _SCALING else ("", None, "")
                return self._words(event), event.line, self._module_of(event) or ""
            event = makers[0]
        return "", None, ""

    def _words(self, event: Event) -> str:
        """An event that makes zeros out of something else, in words: as the module that is nothing but this operation, if one is."""
        measures = self.flow.measures[event]
        module = self._calls.ran.get(measures.module) if measures.module is not None else None
        simple = module is not None and not module._modules and defined_in(type(module)).startswith("torch.nn.")
        return f"the output of {module!r}" if simple else f"what {event.name} gives"

    def _name(self, tensor: Tensor) -> str:
        for name, value in self._batch.items():
            if value is tensor:
                return f"the batch's {name!r}"
        held = (*self._subject.model.named_parameters(), *self._subject.model.named_buffers())
        return next((f"the weight {path!r}" for path, value in held if value is tensor), "")

    def _tensor_hook(self, node: Node) -> Line | None:
        variable = getattr(node, "variable", None)
        if variable is not None and variable._backward_hooks:
            return _code_line(next(iter(variable._backward_hooks.values())))
        return next((line for (hooked, _), line in self.flow.hooked_at.items() if hooked is node), None)

    def _module_hook(self) -> Line | None:
        hooks = [
            hook
            for module in self._subject.model.modules()
            for hook in (*module._backward_hooks.values(), *module._backward_pre_hooks.values())
        ]
        return _code_line(hooks[0]) if hooks else None


_SCALING = frozenset({"mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply", "div", "addmm", "baddbmm", "lerp", "add", "sub"})


def _code_line(function: Any) -> Line | None:
    """The line where a hook returns what takes the place of the gradient."""
    while hasattr(function, "func"):
        function = function.func
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    # its last line is what it returns
    return (code, max((line for *_, line in code.co_lines() if line), default=code.co_firstlineno)) if code is not None else None


def measured(
    subject: Subject,
    layers: AdapterLayers,
    inputs: Mapping[str, Any],
    look: Callable[[Measured], Any],
    prepare: Callable[[nn.Module, WriteGuard], None] | None = None,
    *,
    weighted: bool = True,
) -> Any:
    """What `look` says of one measured run, with the weights that `prepare` leaves.

    Raises:
        InspectionError: the forward or the backward raised.
    """
    with undisturbed(subject.model) as guard:
        if prepare is not None:
            prepare(subject.model, guard)
        batch = own_copy(inputs)
        tensors = [value for value in flattened((batch,)) if isinstance(value, torch.Tensor)]
        calls, operations = Calls(layers, switches := GradSwitches()), Operations(guard)
        flow = MeasuredFlow([*subject.model.parameters(), *subject.model.buffers(), *tensors], switches, calls)
        with ExitStack() as stack:
            for watcher in (switches.watching(), calls.watching(), operations, flow.measuring()):
                stack.enter_context(watcher)
            stack.enter_context(following_threads(propagated_from(switches, calls, operations, flow)))
            loss = forward(subject, batch, weighted=weighted).tensor
            flow.watch_backward(loss)
            backward(subject, loss)
            return look(Measured(subject, layers, flow, calls, batch, loss))
