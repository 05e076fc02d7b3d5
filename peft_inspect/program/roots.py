"""The models that a program trains: the outermost module that it calls itself and that holds adapter layers."""

from __future__ import annotations

import gc
import inspect
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn.parallel import DataParallel, DistributedDataParallel

from peft_inspect.batch.describe import describe
from peft_inspect.batch.target import find_target
from peft_inspect.records import BatchInfo, GradientInfo, LossInfo, Source, Structure, Subject, Trace
from peft_inspect.run.gradients import read_gradients
from peft_inspect.run.layers import AdapterLayers
from peft_inspect.structure import read_structure
from peft_inspect.structure.source.lines import line_above, source
from peft_inspect.trace.modes import outermost
from peft_inspect.trace.operations import Operations
from peft_inspect.trace.watching import Watchers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from peft_inspect.trace.grad_mode import GradSwitches

_WRAPPERS = (DataParallel, DistributedDataParallel)


def root_of(module: nn.Module) -> nn.Module | None:
    """The model that a call of `module` trains; None where it holds no adapter layer.

    That is what was called, without the wrappers of a runtime. Where only a part of a PeftModel was called, it is the PeftModel.
    """
    inner: Any = module
    while isinstance(inner, _WRAPPERS) or hasattr(inner, "_orig_mod"):
        inner = inner.module if isinstance(inner, _WRAPPERS) else inner._orig_mod
    module = inner
    if not any(isinstance(inside, BaseTunerLayer) for inside in module.modules()):
        return None
    if any(hasattr(inside, "peft_config") for inside in module.modules()):
        return module
    around = [other for other in gc.get_objects() if issubclass(type(other), PeftModel)]
    return next((other for other in around if any(inside is module for inside in other.modules())), module)


@dataclass
class Root:
    """One model in one step of the program, and what watches it."""

    model: nn.Module
    called: Source | None
    structure: Structure
    layers: AdapterLayers
    watchers: Watchers
    trains: bool = False  # it was called with gradients on
    backwards: int = 0
    ended: bool = False
    batch: BatchInfo | None = None
    losses: list[LossInfo] = field(default_factory=list)
    rows: dict[str, GradientInfo] = field(default_factory=dict)
    foreign: dict[int, int] = field(default_factory=dict)  # steps of optimizers that hold none of its weights
    _stale: frozenset[int] = frozenset()
    _versions: dict[str, int] = field(default_factory=dict)
    _watching: ExitStack = field(default_factory=ExitStack)
    _operations: ExitStack = field(default_factory=ExitStack)
    _in_operations: bool = False

    @classmethod
    def begin(cls, model: nn.Module, module: nn.Module, args: tuple[Any, ...], switches: GradSwitches) -> Root:
        """Watch from this call of `module` on, which is the model or a part of it, or a runtime's wrapper."""
        structure = read_structure(Subject(model, type(model).__name__))
        layers = AdapterLayers(model, structure)
        root = cls(model, source(line_above(sys._getframe(1))), structure, layers, Watchers(structure, layers, switches))
        root._stale = frozenset(id(parameter) for parameter in layers.parameters.values() if parameter.grad is not None)
        root._versions = {path: parameter._version for path, parameter in root.adapter_parameters.items()}
        root._watching.enter_context(root.watchers.calls.watching())
        if any(part is module for part in layers.modules.values()):
            root.watchers.calls.begin(module, args)
        return root

    @property
    def adapter_parameters(self) -> Mapping[str, nn.Parameter]:
        """The live adapter weights, by path."""
        return {path: self.layers.parameters[path] for layer in self.structure.adapter_layers for path in layer.parameters}

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The adapter weights that require a gradient."""
        return [parameter for parameter in self.adapter_parameters.values() if parameter.requires_grad]

    def enter_call(self) -> None:
        """It is called: operations are watched from here to the backward."""
        if not self._in_operations:
            self._in_operations = True
            self._operations.enter_context(outermost(Operations(None, self.watchers.reads)))

    def _leave_operations(self) -> None:
        self._operations.close()
        self._in_operations = False

    def called_with(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Describe the inputs of its first call."""
        if self.batch is None:
            named = dict(zip(inspect.signature(module.forward).parameters, args, strict=False))
            self.batch = describe({**named, **kwargs}, find_target(self.model).parameters, "the program")

    def before_backward(self, tensors: Iterable[Any]) -> None:
        """The loss of the program, or one of them."""
        self._leave_operations()
        self.watchers.calls.phase = "backward"
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                value = tensor.detach().float().item() if tensor.numel() == 1 else None
                self.losses.append(LossInfo(value, tensor.grad_fn is not None, origin="the program's backward"))

    def after_backward(self) -> None:
        """What has arrived so far. A later backward adds to it; what was cleared in between has arrived all the same."""
        self.watchers.calls.phase = "forward"
        self.backwards += 1
        parameters = self.layers.parameters
        connected = {id(parameter) for parameter in parameters.values() if parameter.grad is not None and id(parameter) not in self._stale}
        for row in read_gradients(parameters, self.structure, connected, values=True):
            earlier = self.rows.get(row.path)
            if earlier is None or row.arrived or not earlier.arrived:
                self.rows[row.path] = row

    @property
    def changed_by_hand(self) -> bool:
        """Whether its weights were updated, or its gradients cleared, without an optimizer that tells."""
        parameters = self.adapter_parameters
        if any(parameter._version != self._versions[path] for path, parameter in parameters.items()):
            return True
        cleared = any(row.arrived for row in self.rows.values()) and all(parameter.grad is None for parameter in parameters.values())
        return cleared and not optimizers_of(self.trainable)

    def end(self) -> None:
        """Watch no longer."""
        self._leave_operations()
        self._watching.close()

    def trace(self, optimizers: Iterable[torch.optim.Optimizer]) -> Trace:
        """What was seen of its step; `optimizers` are all that hold any of its weights."""
        held = {id(tensor) for optimizer in optimizers for group in optimizer.param_groups for tensor in group["params"]}
        known = frozenset(path for path, parameter in self.layers.parameters.items() if id(parameter) in held)
        self.watchers.structure = self.structure = replace(self.structure, optimizer=known or None)
        batch = self.batch or describe({}, (), "the program")
        return self.watchers.trace(batch, self._loss(), tuple(self.rows.values()))

    def _loss(self) -> LossInfo:
        values = [loss.value for loss in self.losses if loss.value is not None]
        has_graph = any(loss.has_graph for loss in self.losses)
        return LossInfo(sum(values) if values else None, has_graph, origin="the program's backward")


def optimizers_of(parameters: Iterable[nn.Parameter]) -> list[torch.optim.Optimizer]:
    """The optimizers of this process that hold any of these weights."""
    wanted = {id(parameter) for parameter in parameters}
    found = [other for other in gc.get_objects() if issubclass(type(other), torch.optim.Optimizer)]
    return [optimizer for optimizer in found if holds(optimizer, wanted)]


def holds(optimizer: torch.optim.Optimizer, wanted: set[int]) -> bool:
    """Whether an optimizer holds any of the tensors with these ids; one that was not set up holds none."""
    groups = getattr(optimizer, "param_groups", None) or ()
    return any(id(tensor) in wanted for group in groups for tensor in group["params"])
