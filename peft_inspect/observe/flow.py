"""Where the way from a dead adapter layer to the loss ends: the data flow of one run, cut by cut.

Only a run in which something is dead and nothing simpler shows why is followed at this height. Every torch
function that Python calls is an event with the events of its operands as parents. Walking back from the
loss, a *dead* tensor is one that has a graph the loss does not reach; the event that takes a dead tensor
in and lets data out that is not dead is the cut.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name

from peft_inspect.observe.graph import ZERO_DERIVATIVE, Node, leaves, reachable
from peft_inspect.observe.sources import Line, nearest, source
from peft_inspect.observe.weightless import storage_key
from peft_inspect.records import CutKind, GraphCut, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import Tensor

    from peft_inspect.observe.grad_mode import GradSwitches
    from peft_inspect.records import GradRegion

Cut = tuple[CutKind, str, Line | Source | None]
STARVED: CutKind = "starved-checkpoint"
_FROM_VALUES = frozenset({"tensor", "empty", "as_tensor", "asarray", "from_numpy", "new_tensor", "scalar_tensor", "full"})
_LIKE = frozenset(
    {
        *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like"),
        *("new_zeros", "new_ones", "new_empty", "new_empty_strided", "new_full", "new_tensor"),
    }
)
"""They take the layout of their first operand and none of its values."""
_AS = frozenset({"expand_as", "view_as", "reshape_as", "type_as", "to"})
"""They take the layout of their second operand and none of its values."""
DETACHING = frozenset({"detach", "detach_", "data"})
_PARAMETER = "Parameter"  # made of a tensor, it is a leaf that shares its values
_ESCAPES = frozenset(
    {
        "item",
        "tolist",
        "numpy",
        "__array__",
        "untyped_storage",
        "__dlpack__",
        "__float__",
        "__int__",
        "__bool__",
        "__index__",
        "__complex__",
    }
)


@dataclass
class Operand:
    """A tensor as it went into an event."""

    event: Event | None
    requires_grad: bool
    node: Node | None
    leaf: int | None  # id of the tensor, for leaves that require grad
    foreign: bool = False  # neither an event nor the model nor the batch brought it: values from outside torch
    single: bool = False  # one number


@dataclass(eq=False)
class Event:
    """One torch function that Python called."""

    order: int
    name: str
    operands: list[Operand]
    grad_enabled: bool
    line: Line | None
    escaped: bool = False  # a Python value or NumPy array came out
    floating: bool = True
    passes: bool = False  # every result has a graph, and a derivative: an operand without one has been written over since
    scalars: list[Event] = field(default_factory=list)  # escapes whose Python number went back in
    region: GradRegion | None = None  # for operands that require grad: the autograd function it runs in


class DataFlow(TorchFunctionMode):
    """Records the torch functions of one run, and which of them read any of the storages `weights`."""

    def __init__(self, known: Iterable[Tensor], switches: GradSwitches, weights: Iterable[int] = ()) -> None:
        super().__init__()
        self.reads: dict[int, list[Event]] = {key: [] for key in weights}
        self._switches = switches
        self._known = {id(tensor) for tensor in known}
        self._made: dict[int, tuple[weakref.ref[Tensor], Event]] = {}
        self._numbers: dict[float, Event] = {}
        self.events: list[Event] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "__set__" and (resolve_name(func) or "").endswith("data.__set__"):
            event = self._event("data", [self._operand(args[1])], [], escaped=False)
            func(*args)
            self._remember(args[0], event, whole=True)
            return None
        name = function_name(func)
        flat = list(_flat((*args, *kwargs.values())))
        operands = [self._operand(value) for value in _with_values(name, flat) if isinstance(value, torch.Tensor)]
        result = func(*args, **kwargs)
        made = [value for value in _flat((result,)) if isinstance(value, torch.Tensor)]
        if not made and name not in _ESCAPES and name != "__setitem__":
            return result
        event = self._event(name, operands, made, escaped=name in _ESCAPES)
        event.scalars = [self._numbers[value] for value in flat if isinstance(value, float) and value in self._numbers]
        for value in flat:
            if isinstance(value, torch.Tensor) and (key := storage_key(value)) in self.reads:
                self.reads[key].append(event)
        written = flat[:1] if name in ("__setitem__", "copy_") or (name.endswith("_") and not name.endswith("__")) else []
        for tensor in [*made, *(value for value in written if isinstance(value, torch.Tensor))]:
            self._remember(tensor, event)
        if isinstance(result, float):
            self._numbers[result] = event
        return result

    def _operand(self, tensor: Tensor) -> Operand:
        event = self.event_of(tensor)
        node = tensor.grad_fn
        leaf = id(tensor) if tensor.requires_grad and node is None else None
        foreign = event is None and node is None and id(tensor) not in self._known
        return Operand(event, tensor.requires_grad, node, leaf, foreign, single=tensor.numel() == 1)

    def _event(self, name: str, operands: list[Operand], made: list[Tensor], *, escaped: bool) -> Event:
        through = name != _PARAMETER and made and all(tensor.requires_grad for tensor in made)
        ends = any(operand.requires_grad for operand in operands) and not through
        zero = any(tensor.grad_fn is not None and tensor.grad_fn.name() in ZERO_DERIVATIVE for tensor in made)
        line = nearest() if ends or zero or escaped or name in _FROM_VALUES else None
        if ends and self._switches.is_off and name not in DETACHING and self._switches.line is not None:
            line = self._switches.line  # what has to change is the switch, not the operation in its reach
        floating = bool(made) and all(tensor.is_floating_point() for tensor in made)  # sort, topk and max give indices beside values
        region = self._switches.region() if ends and not self._switches.is_off and not torch.is_grad_enabled() else None
        passes = bool(made) and not ends and not zero
        event = Event(len(self.events), name, operands, not self._switches.is_off, line, escaped, floating, passes, region=region)
        self.events.append(event)
        return event

    def _remember(self, tensor: Tensor, event: Event, *, whole: bool = False) -> None:
        while True:
            earlier = None if whole else self.event_of(tensor)
            if earlier is not None and earlier is not event:
                rest = Operand(earlier, requires_grad=False, node=None, leaf=None, single=tensor.numel() == 1)
                event.operands.append(rest)  # the rest of its values stay
            self._made[id(tensor)] = (weakref.ref(tensor), event)
            if tensor._base is None:
                break
            tensor = tensor._base  # what is written into a view is in its base as well

    @contextmanager
    def watching(self) -> Iterator[DataFlow]:
        """Record what is called inside; of how parameters are made, torch tells no mode."""
        original = torch.nn.Parameter.__new__

        def make(cls: type, data: Any = None, *args: Any, **kwargs: Any) -> Any:
            made: Any = original(cls, data, *args, **kwargs)
            if isinstance(data, torch.Tensor):
                self._remember(made, self._event(_PARAMETER, [self._operand(data)], [made], escaped=False), whole=True)
            return made

        torch.nn.Parameter.__new__ = make  # type: ignore[method-assign]
        try:
            with self:
                yield self
        finally:
            torch.nn.Parameter.__new__ = original  # type: ignore[method-assign]

    def event_of(self, tensor: Tensor) -> Event | None:
        """The event that made this tensor, or last wrote into it."""
        made = self._made.get(id(tensor))
        return made[1] if made is not None and made[0]() is tensor else None


def function_name(func: Callable[..., Any]) -> str:
    """How a torch function is called in Python: its name, for properties that of the property, without the overload."""
    name = str(getattr(func, "__name__", "")).partition(".")[0]
    return (resolve_name(func) or name).split(".")[-2] if name == "__get__" else name


def _with_values(name: str, flat: list[Any]) -> list[Any]:
    """The operands whose values count: a tensor that only lends its shape or dtype is none."""
    if name in _LIKE:
        return flat[1:]
    return flat[:1] if name in _AS else flat


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        elif isinstance(value, dict):
            yield from _flat(value.values())
        else:
            yield value


class Slice:
    """What of the recorded flow the loss depends on, and where dead tensors leave it.

    `again` are the outputs of what custom autograd functions ran once more in the backward: gradients start from these too.
    """

    def __init__(self, flow: DataFlow, loss: Tensor, again: Iterable[Tensor] = ()) -> None:
        self._alive = reachable([tensor.grad_fn for tensor in (loss, *again)], through_zero=False)
        self._loss = flow.event_of(loss)
        self.events: set[Event] = set()
        self._cuts: list[tuple[Event, Operand]] = []
        self.from_values: list[Event] = []  # events that brought in values from outside torch
        self._data: set[Event] = set()
        self.opaque = self._loss is None  # a custom autograd function hides part of the data flow
        if self._loss is not None:
            self._walk(self._loss, self.events, self._cuts)
            self._collect_data(self._loss)
        for event in map(flow.event_of, again):
            if event is not None:
                self._walk(event, self.events, self._cuts)
        self._escapes = [event for event in flow.events if event.escaped]

    def _walk(self, start: Event, seen: set[Event], cuts: list[tuple[Event, Operand]]) -> None:
        pending = [start]
        while pending:
            event = pending.pop()
            if event in seen:
                continue
            seen.add(event)
            if event.name in _FROM_VALUES or any(operand.foreign for operand in event.operands):
                self.from_values.append(event)
            pending.extend(event.scalars)
            for operand in event.operands:
                if self._is_dead(operand, event):
                    cuts.append((event, operand))
                elif operand.event is not None:
                    pending.append(operand.event)

    def _collect_data(self, start: Event) -> None:
        pending = [start]
        while pending:
            event = pending.pop()
            if event not in self._data:
                self._data.add(event)
                pending.extend(event.scalars)
                pending.extend(operand.event for operand in event.operands if operand.event is not None)
                self.opaque |= any(operand.event is None and operand.node is not None for operand in event.operands)

    def stays_inside(self, events: Iterable[Event]) -> bool:
        """Whether data of these events flows neither into the loss nor out of torch, from where it could come back."""
        left, pending = set[Event](), list(self._escapes)
        while pending:
            event = pending.pop()
            if event not in left:
                left.add(event)
                pending.extend(operand.event for operand in event.operands if operand.event is not None)
        return not self.opaque and all(event not in self._data and event not in left for event in events)

    def depends_on(self, event: Event | None) -> bool | None:
        """Whether data of `event` flows into the loss; None where part of the flow is hidden."""
        if event in self._data:
            return True
        return None if self.opaque or event is None else False

    def _is_dead(self, operand: Operand, event: Event) -> bool:
        if not operand.requires_grad or event.passes:
            return False
        if operand.node is not None:
            return operand.node not in self._alive
        return not event.grad_enabled or event.name in DETACHING  # a leaf used where gradients are off, or cut from its gradient

    def cuts(self, parameters: Mapping[int, set[str]], wanted: frozenset[str], through_python: frozenset[str]) -> tuple[GraphCut, ...]:
        """The cuts that part `wanted` adapter layers from the loss.

        `parameters` gives the layers of a parameter's `id`: some tuners share one among several. `through_python`
        are the layers whose values may take the way through Python.
        """
        found = _grouped(self._cuts, parameters, wanted)
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

    def _through_python(self, parameters: Mapping[int, set[str]], wanted: frozenset[str]) -> dict[Cut, set[str]]:
        """Cuts where values left torch (NumPy, Python numbers); whether they came back in, the graph cannot tell."""
        last = max((event.order for event in self.from_values), default=len(self._escapes) and self._escapes[-1].order)
        cuts: list[tuple[Event, Operand]] = []
        for escape in self._escapes:
            if escape.order <= last and escape not in self.events:
                self._walk(escape, set(), cuts)
        found: dict[Cut, set[str]] = {}
        for (kind, operation, line), layers in _grouped(cuts, parameters, wanted).items():
            # a detach in front of `.numpy()` is no fault of its own: what leaves torch loses its graph in any case
            found.setdefault((kind if kind == "non-differentiable" else "escape", operation, line), set()).update(layers)
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
            if any(operand.requires_grad for operand in event.operands) or (single and event.name in _FROM_VALUES):
                line = event.line
            else:
                pending += [(operand.event, operand.single) for operand in event.operands]
        return line


def _source(line: Line | Source | None) -> Source | None:
    return line if isinstance(line, Source) else source(line)


def _grouped(cuts: Iterable[tuple[Event, Operand]], parameters: Mapping[int, set[str]], wanted: frozenset[str]) -> dict[Cut, set[str]]:
    found: dict[Cut, set[str]] = {}
    for event, operand in cuts:
        ids = leaves(reachable([operand.node])) if operand.node is not None else {operand.leaf}
        layers = {layer for key in ids if key is not None for layer in parameters.get(key, ())} & wanted
        if layers:
            starved = event.region if event.region is not None and event.region.inputs_require_grad is False else None
            cut = (_kind(event), event.name, event.line) if starved is None else (STARVED, starved.kind, starved.source)
            found.setdefault(cut, set()).update(layers)
    return found


def _kind(event: Event) -> CutKind:
    if event.name in DETACHING or event.name in _FROM_VALUES or event.name == _PARAMETER:
        return "detach"
    if event.escaped:
        return "escape"
    if not event.grad_enabled:
        return "no-grad-region"
    return "zero-derivative" if event.floating else "non-differentiable"
