"""Which modules ran, inside which, and in what state: global module hooks.

Global, because a hook on a module changes what torch runs there: `nn.TransformerEncoderLayer` leaves its
fused path as soon as any module inside it has a hook of its own, and the fault is gone while it is watched.
"""

from __future__ import annotations

import inspect
import itertools
import sys
import threading
from collections import Counter
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from peft_inspect.records import BaseCall, CallInfo, GradRegion, Source
from peft_inspect.reversible import hooked
from peft_inspect.run.layer_states import LayerStates
from peft_inspect.structure.source.lines import Line, is_machinery, is_peft, nearest_line, source
from peft_inspect.trace.stock import StockLayers, adapters_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from torch import nn

    from peft_inspect.run.layers import AdapterLayers
    from peft_inspect.trace.grad_mode import GradSwitches
    from peft_inspect.trace.operations import Operations


@dataclass
class Call:
    """One call of one adapter layer while it runs; `CallInfo` is what is kept of it."""

    order: int
    layer: int
    caller: int | None
    phase: Literal["forward", "backward"]
    region: GradRegion | None
    enabled: bool
    merged: bool
    active: tuple[str, ...]
    input_requires_grad: bool
    output_requires_grad: bool = False
    adapter_used: set[str] = field(default_factory=set)
    base_used: bool = False
    reaches_loss: bool | None = None
    per_sample: bool = False
    switched: Line | None = None
    chosen: bool = False
    empty: bool = False
    unwatched: bool = False  # a stock layer, whose operations are known


class Calls:
    """The modules that run, as a stack; the calls of adapter layers; base layers called around them."""

    def __init__(self, layers: AdapterLayers, switches: GradSwitches, states: LayerStates | None = None) -> None:
        """`switches` and `states` note who switched what, here or over a longer time."""
        self._layers = layers
        self._switches = switches
        self._states = states or LayerStates()
        self._stacks = threading.local()
        self._open: dict[int, list[Call]] = {}
        self._base_calls: Counter[tuple[int, int | None, Line | None, bool, bool]] = Counter()
        self._orders = itertools.count()
        self.calls: list[Call] = []
        self.ran: dict[int, nn.Module] = {}  # in order of their first call; foreign modules too
        self._first: dict[int, tuple[int | None, Line]] = {}
        self._phase: Literal["forward", "backward"] = "forward"
        self._switched_since: dict[tuple[int, str], Line | None] = {}  # adapters that are no longer active at the backward
        self._stock = StockLayers()
        self.operations: Operations | None = None  # paused in stock layers
        self._in_graph: int | None = None  # a frozen graph that runs, for which they are paused too
        self.on_output: Callable[[Call, Any], None] | None = None
        self._replaced: dict[type, bool] = {}
        self._paths: dict[int, str] = {}
        for path, module in layers.modules.items():
            self._paths.setdefault(id(module), path)
        self._paths.update(layers.around)

    @property
    def phase(self) -> Literal["forward", "backward"]:
        """What runs: the forward, or the backward, which may run blocks again."""
        return self._phase

    @phase.setter
    def phase(self, phase: Literal["forward", "backward"]) -> None:
        if phase == "backward" and self._phase == "forward":
            for call in self.calls:
                layer = self._layers.module[call.layer]
                now = self._layers.state(layer)
                gone = set(call.active).difference(now.active if now.enabled else ())
                if call.enabled and not call.per_sample:
                    self._switched_since.update({(call.layer, name): self._states.line(layer, now) for name in gone})
        self._phase = phase

    def switched_since(self) -> dict[tuple[str, str], Source | None]:
        """Adapters that a layer ran with and that are no longer active in it at the backward, by the line that switched."""
        return {(self._layers.path[key], name): source(line) for (key, name), line in self._switched_since.items()}

    @property
    def _stack(self) -> list[nn.Module]:
        """The modules that run in this thread, the outermost first."""
        stack: list[nn.Module] | None = getattr(self._stacks, "running", None)
        if stack is None:
            stack = self._stacks.running = []
        return stack

    def in_thread(self) -> Callable[[], AbstractContextManager[None]]:
        """For a thread that work is handed to: what runs here is what it runs inside of."""
        running = tuple(self._stack)

        @contextmanager
        def around() -> Iterator[None]:
            before, self._stacks.running = self._stack, list(running)
            try:
                yield
            finally:
                self._stacks.running = before

        return around

    @contextmanager
    def watching(self) -> Iterator[Calls]:
        """Watch every module that is called inside."""
        with self.hooks(), self._states.watching(self._layers.module.values()):
            yield self

    def hooks(self) -> hooked:
        """What watches the calls alone; the states of the layers are watched by somebody else."""
        return hooked(
            partial(register_module_forward_pre_hook, self._enter),
            partial(register_module_forward_hook, self._leave, with_kwargs=True, always_call=True),
        )

    def begin(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """From within a hook of this very call, which began before the watching did."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and is_machinery(frame.f_code):
            frame = frame.f_back
        self._entered(module, args, frame)

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        # this hook ← inner ← Module._call_impl ← Module._wrapped_call_impl ← who calls
        self._entered(module, args, sys._getframe(4) if id(module) not in self.ran else None)

    def _entered(self, module: nn.Module, args: tuple[Any, ...], frame: FrameType | None) -> None:
        key = id(module)
        caller = id(self._stack[-1]) if self._stack else None
        if key not in self.ran and self.phase == "forward":
            self.ran[key] = module
            if frame is not None:
                self._first[key] = (caller, (frame.f_code, frame.f_lineno))
        if key in self._layers.module:
            self._open_call(module, args, caller)
        elif key in self._layers.bases:
            self.base_called(key, nearest_line, caller)
        elif isinstance(module, torch.jit.ScriptModule) and self.operations is not None and is_frozen_graph(module):
            self._in_graph = key if self.operations.pause() else None  # torch's interpreter fails in it beside a mode
        self._stack.append(module)

    def _open_call(self, layer: Any, args: tuple[Any, ...], caller: int | None) -> None:
        state = self._layers.state(layer)
        call = Call(
            order=next(self._orders),
            layer=id(layer),
            caller=caller,
            phase=self.phase,
            region=self._switches.region(),
            enabled=state.enabled,
            merged=state.merged,
            active=state.active,
            input_requires_grad=any(isinstance(arg, torch.Tensor) and arg.requires_grad for arg in args),
            switched=self._states.line(layer, state),
            chosen=self._states.in_step(layer, state),
            empty=any(isinstance(arg, torch.Tensor) and not arg.numel() for arg in args[:1]),
        )
        self.calls.append(call)
        self._open.setdefault(id(layer), []).append(call)
        if self.operations is not None and self._stock.holds(layer):
            call.unwatched = self.operations.pause()

    def base_called(self, base: int, line: Callable[[], Line | None], caller: int | None) -> None:
        """A base layer runs: outside its adapter layer, or inside one whose forward is not PEFT's, it is worth its line."""
        layers = self._layers.bases[base]
        running = [layer for layer in layers if self.inside(layer) or (layer in self._layers.before and layer in self._open)]
        replaced = [layer for layer in running if self.is_replaced(layer)]
        for layer in replaced or (layers if not running else ()):
            self._base_calls[layer, caller, line(), bool(replaced), self.in_reference] += 1

    def is_replaced(self, layer: int) -> bool:
        """Whether the forward of an adapter layer is not PEFT's: put on the layer or its class, or that of a class of the user's."""
        module = self._layers.wrapper.get(layer) or self._layers.module[layer]
        kind = type(module)
        if kind not in self._replaced:
            code = getattr(inspect.unwrap(kind.forward), "__code__", None)
            self._replaced[kind] = code is None or not is_peft(code)
        return self._replaced[kind] or "forward" in vars(module)

    def base_read(self, layer: int, line: Callable[[], Line | None]) -> None:
        """The weight of the base is read while its layer runs: worth its line where a forward that is not PEFT's does so itself."""
        if self.current == layer and self.is_replaced(layer):
            self._base_calls[layer, layer, line(), True, self.in_reference] += 1

    def _leave(self, module: nn.Module, _args: Any, *kwargs_and_output: Any) -> None:
        """The end of a call. After an exception torch gives no keyword arguments, also to hooks that ask for them."""
        kwargs, output = kwargs_and_output if len(kwargs_and_output) == 2 else ({}, None)
        if self._in_graph == id(module) and self.operations is not None:
            self.operations.resume()
            self._in_graph = None
        while self._stack and self._stack.pop() is not module:  # an exception may have skipped the modules inside
            pass
        if id(module) in self._layers.module and self._open.get(id(module)):
            call = self._open[id(module)].pop()
            if call.unwatched and self.operations is not None:
                self.operations.resume()
                call.base_used, call.adapter_used = True, set(call.active) & set(adapters_of(module))
            if (names := kwargs.get("adapter_names")) is not None:
                call.active, call.per_sample = tuple(name for name in dict.fromkeys(names) if name != "__base__"), True
            tensors = output if isinstance(output, (tuple, list)) else (output,)
            call.output_requires_grad = any(isinstance(tensor, torch.Tensor) and tensor.requires_grad for tensor in tensors)
            if self.on_output is not None:
                self.on_output(call, tensors)

    @property
    def current(self) -> int | None:
        """The module that is running."""
        return id(self._stack[-1]) if self._stack else None

    @property
    def current_module(self) -> nn.Module | None:
        """The module that is running."""
        return self._stack[-1] if self._stack else None

    @property
    def in_reference(self) -> bool:
        """Whether Python code has switched gradients off, as for a reference pass."""
        return self._switches.is_off

    def innermost(self, layer: int) -> Call | None:
        """The innermost call of this adapter layer that is running."""
        running = self._open.get(layer)
        return running[-1] if running else None

    def inside(self, layer: int) -> bool:
        """Whether this adapter layer is running, or this wrapper around a trained copy."""
        return bool(self._open.get(layer)) or (layer in self._layers.wrapper and any(id(module) == layer for module in self._stack))

    def path_of(self, module: int | None) -> str | None:
        """The path of a module; None for one that the model does not hold."""
        return None if module is None else self._paths.get(module)

    def foreign(self, module: int) -> bool:
        """Whether the model does not hold this module."""
        return module not in self._paths

    def first_source(self, module: int | None) -> Source | None:
        """The line that first called this module, or the module around it where torch itself made the call."""
        while module is not None and module in self._first:
            caller, line = self._first[module]
            if not is_machinery(line[0]) and not is_peft(line[0]):
                return source(line)
            module = caller
        return None

    def caller_of(self, module: int) -> nn.Module | None:
        """The module whose forward first called this one."""
        caller = self._first[module][0] if module in self._first else None
        return None if caller is None else self.ran.get(caller)

    def executed(self) -> frozenset[str]:
        """Paths of the model's modules that ran in the forward."""
        return frozenset(self._paths[module] for module in self.ran if module in self._paths)

    def found(self) -> tuple[CallInfo, ...]:
        """The calls of adapter layers, in order."""
        return tuple(
            CallInfo(
                order=call.order,
                path=self._layers.path[call.layer],
                caller=self.path_of(call.caller),
                phase=call.phase,
                region=call.region,
                enabled=call.enabled,
                merged=call.merged,
                active=call.active,
                input_requires_grad=call.input_requires_grad,
                output_requires_grad=call.output_requires_grad,
                adapter_used=frozenset(call.adapter_used),
                base_used=call.base_used,
                reaches_loss=call.reaches_loss,
                per_sample=call.per_sample,
                switched=source(call.switched),
                chosen=call.chosen,
                empty=call.empty,
            )
            for call in self.calls
        )

    def base_calls(self) -> tuple[BaseCall, ...]:
        """Base layers that ran outside their adapter layer, and adapter layers whose forward was replaced."""
        return tuple(
            BaseCall(self._layers.path[layer], self.path_of(caller), source(line), count, patched, reference)
            for (layer, caller, line, patched, reference), count in self._base_calls.items()
        )


def is_frozen_graph(module: nn.Module) -> bool:
    """Whether a module is a graph of torch.jit that holds nothing but constants: `torch.jit.freeze` made these of all weights."""
    return isinstance(module, torch.jit.ScriptModule) and next(module.parameters(), None) is None and next(module.buffers(), None) is None
