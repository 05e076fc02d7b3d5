"""The data flow of one run: every torch function that Python calls is an event with the events of its operands as parents.

Only a run in which something is dead and nothing simpler shows why is followed at this height.
"""

from __future__ import annotations

import sys
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name

from peft_inspect.internals import OpOverload, OpOverloadPacket, find
from peft_inspect.reversible import patched
from peft_inspect.run import patches
from peft_inspect.run.graph import ENDS, Node, node_of
from peft_inspect.run.weightless import storage_key
from peft_inspect.structure.source.lines import Line, frames, nearest_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import Tensor

    from peft_inspect.records import GradRegion
    from peft_inspect.trace.grad_mode import GradSwitches

_base_of = find("base_of")
FROM_VALUES = frozenset({"tensor", "empty", "as_tensor", "asarray", "from_numpy", "new_tensor", "scalar_tensor", "full"})
LIKE = frozenset(
    {
        *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like"),
        *("new_zeros", "new_ones", "new_empty", "new_empty_strided", "new_full", "new_tensor"),
    }
)
"""They take the layout of their first operand and none of its values."""
_AS = frozenset({"expand_as", "view_as", "reshape_as", "type_as", "to"})
"""They take the layout of their second operand and none of its values."""
DETACHING = frozenset({"detach", "detach_", "data"})
PARAMETER = "Parameter"  # made of a tensor, it is a leaf that shares its values
SAMPLE = "sample"  # of a distribution
RAW = "data_ptr"  # an address: what a kernel reads and writes there, torch does not see
_ESCAPES = frozenset(
    {
        RAW,
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
    no_backward: bool = False  # an operation of a library that registered no derivative
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
        self._aliased: dict[int, tuple[weakref.ref[Tensor], weakref.ref[Tensor]]] = {}  # what a detach gave, and of what
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
        flat = list(flattened((*args, *kwargs.values())))
        operands = [self._operand(value) for value in with_values(name, flat) if isinstance(value, torch.Tensor)]
        result = func(*args, **kwargs)
        made = [value for value in flattened((result,)) if isinstance(value, torch.Tensor)]
        if not made and name not in _ESCAPES and name != "__setitem__":
            return result
        event = self._event(name, operands, made, escaped=name in _ESCAPES)
        event.no_backward = event.floating and _is_of_library(func) and not event.passes
        event.scalars = [self._numbers[value] for value in flat if isinstance(value, float) and value in self._numbers]
        for value in flat:
            if isinstance(value, torch.Tensor) and (key := storage_key(value)) in self.reads:
                self.reads[key].append(event)
        filled = name == RAW and not flat[0].requires_grad  # by a kernel that is given its address
        written = flat[:1] if filled or name in ("__setitem__", "copy_") or (name.endswith("_") and not name.endswith("__")) else []
        for tensor in [*made, *(value for value in written if isinstance(value, torch.Tensor))]:
            self._remember(tensor, event)
        if name in DETACHING and made:
            self._aliased[id(made[0])] = (weakref.ref(made[0]), weakref.ref(flat[0]))
        elif written and not filled:
            self._write_through(written[0])
        if isinstance(result, float):
            self._numbers[result] = event
        self._recorded(event, flat, made)
        return result

    def _write_through(self, tensor: Tensor) -> None:
        """What is written into a tensor's `.data` is in that tensor, and has no graph there."""
        alias, whole = self._aliased.get(id(tensor), (None, None))
        if alias is not None and whole is not None and alias() is tensor and (original := whole()) is not None:
            self._remember(original, self._event("data", [self._operand(tensor)], [], escaped=False))

    def _recorded(self, event: Event, given: list[Any], made: list[Tensor]) -> None:
        """What was given to an event and what it made, for those who measure them."""

    def _operand(self, tensor: Tensor) -> Operand:
        event = self.event_of(tensor)
        node = node_of(tensor)
        leaf = id(tensor) if tensor.requires_grad and node is None else None
        foreign = event is None and node is None and id(tensor) not in self._known
        return Operand(event, tensor.requires_grad, node, leaf, foreign, single=tensor.numel() == 1)

    def _event(self, name: str, operands: list[Operand], made: list[Tensor], *, escaped: bool) -> Event:
        through = name != PARAMETER and made and all(tensor.requires_grad for tensor in made)
        ends = any(operand.requires_grad for operand in operands) and not through
        zero = any(tensor.grad_fn is not None and tensor.grad_fn.name() in ENDS for tensor in made)
        foreign = any(operand.foreign for operand in operands)
        line = nearest_line() if ends or zero or escaped or foreign or name in FROM_VALUES else None
        if ends and self._switches.is_off and name not in DETACHING and self._switches.line is not None:
            line = self._switches.line  # what has to change is the switch, not the operation in its reach
        if self._switches.is_off and any(operand.requires_grad for operand in operands) and _is_drawing():
            name, line = SAMPLE, nearest_line()  # a distribution switches gradients off for itself
        floating = bool(made) and all(tensor.is_floating_point() for tensor in made)  # sort, topk and max give indices beside values
        region = self._switches.region() if ends and not self._switches.is_off and not torch.is_grad_enabled() else None
        passes = bool(made) and not ends and not zero and name != SAMPLE
        event = Event(len(self.events), name, operands, not self._switches.is_off, line, escaped, floating, passes=passes, region=region)
        self.events.append(event)
        return event

    def _remember(self, tensor: Tensor, event: Event, *, whole: bool = False) -> None:
        while True:
            earlier = None if whole else self.event_of(tensor)
            if earlier is not None and earlier is not event:
                rest = Operand(earlier, requires_grad=False, node=None, leaf=None, single=tensor.numel() == 1)
                event.operands.append(rest)  # the rest of its values stay
            self._made[id(tensor)] = (weakref.ref(tensor), event)
            base = _base_of(tensor) if _base_of else None
            if base is None:
                break
            tensor = base  # what is written into a view is in its base as well

    def in_thread(self) -> Callable[[], DataFlow]:
        """The same for a thread that work is handed to: it records into the same flow."""
        return lambda: self

    @contextmanager
    def watching(self) -> Iterator[DataFlow]:
        """Record what is called inside; of how parameters are made, torch tells no mode."""
        with self.making(), self:
            yield self

    def making(self) -> patched:
        """Have the making of parameters recorded as well, beside the mode itself."""
        return patched((*patches.PARAMETER_NEW, self._making))

    def _making(self, new: Any) -> Any:
        def make(cls: type, data: Any = None, *args: Any, **kwargs: Any) -> Any:
            made = new.__get__(None, torch.nn.Parameter)(cls, data, *args, **kwargs)  # stored as a staticmethod
            if isinstance(data, torch.Tensor):
                self._remember(made, self._event(PARAMETER, [self._operand(data)], [made], escaped=False), whole=True)
            return made

        return staticmethod(make)

    def event_of(self, tensor: Tensor) -> Event | None:
        """The event that made this tensor, or last wrote into it."""
        made = self._made.get(id(tensor))
        return made[1] if made is not None and made[0]() is tensor else None


def _is_drawing() -> bool:
    """Whether `sample` of one of torch's distributions runs, which has no gradient; `rsample` has one."""
    return any(
        frame.f_code.co_name == "sample" and frame.f_globals.get("__name__", "").startswith("torch.distributions")
        for frame in frames(sys._getframe(1))
    )


def _is_of_library(func: Callable[..., Any]) -> bool:
    """Whether an operation was registered by somebody other than torch."""
    return isinstance(func, (OpOverload, OpOverloadPacket)) and not str(func).startswith(("aten.", "prim.", "prims."))


def function_name(func: Callable[..., Any]) -> str:
    """How a torch function is called in Python: its name, for properties that of the property, without the overload."""
    if _is_of_library(func):
        return ".".join(str(func).split(".")[:2])
    name = str(getattr(func, "__name__", "")).partition(".")[0]
    return (resolve_name(func) or name).split(".")[-2] if name == "__get__" else name


def with_values(name: str, flat: list[Any]) -> list[Any]:
    """The operands whose values count: a tensor that only lends its shape or dtype is none."""
    if name in LIKE:
        return flat[1:]
    return flat[:1] if name in _AS else flat


def flattened(values: Iterable[Any]) -> Iterator[Any]:
    """What lists, tuples and dictionaries hold, however deep."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from flattened(value)
        elif isinstance(value, dict):
            yield from flattened(value.values())
        else:
            yield value
