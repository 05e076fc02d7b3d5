"""The data flow of one run with its values: which events make zeros or values that are not finite, forwards and backwards.

Every node of the autograd graph is claimed by the event that made it, and tells in the backward what gradient it takes and
what it hands on. Looking at every value costs more than the run itself: only a run that is known to fail is measured.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from peft_inspect.internals import DisableTorchFunction
from peft_inspect.reversible import patched
from peft_inspect.run import patches
from peft_inspect.run.graph import Node, upstream
from peft_inspect.structure.source.lines import Line, frames, is_machinery, is_peft, nearest_line
from peft_inspect.trace.flow import LIKE, DataFlow, Event, Operand, with_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from peft_inspect.trace.calls import Calls
    from peft_inspect.trace.grad_mode import GradSwitches

Values = Literal["none", "zero", "finite", "nonfinite"]
_HALVES = frozenset({torch.float16, torch.bfloat16})
_ORDER: tuple[Values, ...] = ("none", "zero", "finite", "nonfinite")
Edge = tuple[Node, int]  # a node, and which of its inputs or outputs


@dataclass
class Measures:
    """What is known of the values of one event."""

    module: int | None  # the module that performed it
    made: Values = "none"
    sound: bool = True  # neither NaN nor +inf came out; -inf stands in masks on purpose
    finite: bool = True  # -inf neither
    given_sound: bool = True
    given_finite: bool = True
    zeros: list[Tensor] = field(default_factory=list)  # operands that hold nothing but zeros
    zero_events: list[Event | None] = field(default_factory=list)  # the events that made these; None for those that came in
    zero_names: list[str] = field(default_factory=list)  # what those are called where they came in
    by_zero: bool = False  # a Python number among its arguments is zero
    unsound: Tensor | None = None  # an operand that came in, not finite as it was


class MeasuredFlow(DataFlow):
    """The flow of one run, measured."""

    def __init__(self, known: Iterable[Tensor], switches: GradSwitches, calls: Calls, weights: Iterable[int] = ()) -> None:
        super().__init__(known, switches, weights)
        self._calls = calls
        self._handles: list[Any] = []
        self._watching_nodes = False
        self.forward_events = 0
        self.halves = False  # anything was computed in half precision
        self.measures: dict[Event, Measures] = {}
        self.constants: list[Event] = []  # they give a number in the shape of what depends on the weights
        self.maker: dict[Node, Event] = {}
        self.hooked_at: dict[Edge, Line | None] = {}  # where a hook was put on a tensor while the model ran
        self.took: dict[Node, dict[int, Values]] = {}
        self.gave: dict[Node, dict[int, Values]] = {}
        self.sources: dict[Edge, list[Edge]] = defaultdict(list)  # what hands gradients on to this input of a node
        self.leaf: dict[int, Node] = {}  # the node that accumulates the gradient of a tensor, by the tensor's id

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.register_hook and args[0].grad_fn is not None:
            self.hooked_at[args[0].grad_fn, args[0].output_nr] = nearest_line()
        return super().__torch_function__(func, types, args, kwargs)

    def _event(self, name: str, operands: list[Operand], made: list[Tensor], *, escaped: bool) -> Event:
        event = super()._event(name, operands, made, escaped=escaped)
        event.line = event.line or nearest_line()
        return event

    def _recorded(self, event: Event, given: list[Any], made: list[Tensor]) -> None:
        measures = self.measures[event] = Measures(self._calls.current)
        made = [tensor for tensor in made if tensor.is_floating_point()]
        self.halves = self.halves or any(tensor.dtype in _HALVES for tensor in made)
        measures.made = _merged(map(values_of, made))
        measures.sound, measures.finite = all(map(_is_sound, made)), measures.made != "nonfinite"
        if event.name in LIKE and given and getattr(given[0], "requires_grad", False):
            self.constants.append(event)
        measures.by_zero = any(isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0 for value in given)
        tensors = (value for value in with_values(event.name, given) if isinstance(value, torch.Tensor))
        for tensor, operand in zip(tensors, event.operands, strict=False):
            if not any(tensor is other for other in made):
                _given(measures, tensor, operand.event)
        for tensor in made:
            self._claim(tensor.grad_fn, event)

    def _claim(self, node: Node | None, event: Event) -> None:
        """The nodes that nobody claims yet are those that the event has made."""
        pending = [node]
        while pending:
            node = pending.pop()
            if node is None or node in self.maker:
                continue
            if hasattr(node, "variable"):
                self._watch(node)
                continue
            self.maker[node] = event
            pending += [following for following, _ in node.next_functions]
            self._watch(node)

    @contextmanager
    def measuring(self) -> Iterator[MeasuredFlow]:
        """Record and measure what is called inside, custom autograd functions included: torch shows them to no mode."""
        with self.watching(), self.applying():
            try:
                yield self
            finally:
                self.let_go()

    def applying(self) -> patched:
        """Have calls of custom autograd functions recorded as well, beside the mode itself."""
        return patched((*patches.FUNCTION_APPLY, self._applied))

    def let_go(self) -> None:
        """Look at no gradient any longer."""
        for handle in self._handles:
            handle.remove()

    def _applied(self, apply: Any) -> Any:
        def applied(cls: type, *args: Any, **kwargs: Any) -> Any:
            given = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
            operands = [self._operand(tensor) for tensor in given]
            outputs = apply.__get__(None, cls)(*args, **kwargs)  # a classmethod, one written in C from torch 2.14 on
            made = [value for value in (outputs if isinstance(outputs, tuple) else (outputs,)) if isinstance(value, torch.Tensor)]
            event = self._event(cls.__name__, operands, made, escaped=False)
            for tensor in made:
                self._remember(tensor, event)
            self._recorded(event, given, made)
            return outputs

        return classmethod(applied)

    def watch_backward(self, loss: Tensor) -> None:
        """Have every node of the graph tell what it takes and hands on, and those that are made from now on."""
        self._watching_nodes = True
        self.forward_events = len(self.events)
        for node in upstream([loss.grad_fn]):
            self._watch(node)

    def _watch(self, node: Node) -> None:
        if not self._watching_nodes or node in self.took:
            return
        self.took[node], self.gave[node] = {}, {}
        if hasattr(node, "variable"):
            self.leaf[id(node.variable)] = node
            self._handles.append(node.register_prehook(partial(self._arrived, node)))
            return
        for place, following in enumerate(node.next_functions):
            if following[0] is not None:
                self.sources[following].append((node, place))
        self._handles.append(node.register_hook(partial(self._passed, node)))

    def _arrived(self, node: Node, gradients: tuple[Tensor | None, ...]) -> None:
        with DisableTorchFunction():  # looking at a gradient is no event of the model's
            _add(self.took[node], gradients)

    def _passed(self, node: Node, handed_on: tuple[Tensor | None, ...], gradients: tuple[Tensor | None, ...]) -> None:
        with DisableTorchFunction():
            _add(self.took[node], gradients)
            _add(self.gave[node], handed_on)


def _given(measures: Measures, tensor: Tensor, maker: Event | None) -> None:
    values = values_of(tensor)
    if values == "zero":
        measures.zeros.append(tensor)
        measures.zero_events.append(maker)
        measures.zero_names.append("" if maker is not None else _local_name(tensor))
    if values == "nonfinite":
        measures.given_finite = False
        measures.given_sound &= _is_sound(tensor)
        if maker is None and not _is_sound(tensor):
            measures.unsound = tensor


def _local_name(tensor: Tensor) -> str:
    """What a tensor is called in the nearest line's function; empty where it has no name there."""
    for frame in frames(sys._getframe(2)):
        if not is_machinery(frame.f_code) and not is_peft(frame.f_code):
            local = frame.f_locals
            inside = ((f"{name}[{key!r}]", item) for name, value in local.items() if isinstance(value, dict) for key, item in value.items())
            return next((name for name, value in (*local.items(), *inside) if value is tensor), "")
    return ""


def _add(values: dict[int, Values], gradients: tuple[Tensor | None, ...]) -> None:
    """A node runs more than once where its graph is kept; what it ever saw counts."""
    for place, gradient in enumerate(gradients):
        values[place] = _merged((values.get(place, "none"), values_of(gradient)))


def values_of(tensor: Tensor | None) -> Values:
    """What a tensor holds; of numbers that are no floating ones only whether they are all zero."""
    if tensor is None:
        return "none"
    with torch.no_grad():
        if tensor.layout is not torch.strided:
            tensor = tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor.to_dense()
        if (tensor.is_floating_point() or tensor.is_complex()) and not bool(torch.isfinite(tensor).all()):
            return "nonfinite"
        return "finite" if bool(tensor.any()) else "zero"


def _is_sound(tensor: Tensor) -> bool:
    # masks are filled with -inf on purpose: NaN and +inf are faults, and NaN is what -inf turns into
    return not tensor.is_floating_point() or not bool((torch.isnan(tensor) | torch.isposinf(tensor)).any())


def _merged(values: Iterable[Values]) -> Values:
    return max(values, key=_ORDER.index, default="none")
