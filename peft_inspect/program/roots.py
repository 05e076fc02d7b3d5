"""One model that a program trains, in one step of it."""

from __future__ import annotations

import inspect
import math
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import nn

from peft_inspect.batch.describe import describe
from peft_inspect.batch.receiver import find_receiver
from peft_inspect.internals import hooks_after_accumulation, version_of
from peft_inspect.program.arrivals import Arrivals
from peft_inspect.program.followed import FollowedStep, Manner
from peft_inspect.program.gathered import Gathered
from peft_inspect.program.live import holds, live_optimizers, optimizers_of
from peft_inspect.records import AdapterFile, BatchInfo, GradientInfo, LossInfo, OptimizerOrigin, Source, Structure, Subject, Trace
from peft_inspect.reversible import Apart
from peft_inspect.run.gradients import read_gradients
from peft_inspect.run.layers import AdapterLayers
from peft_inspect.run.updates import Updates
from peft_inspect.structure import read_structure
from peft_inspect.structure.adapter_files import compared
from peft_inspect.structure.optimizers import held_as_copies, held_by, unknown_holder
from peft_inspect.structure.source.lines import line_above, source
from peft_inspect.structure.wrappers import class_of, inside
from peft_inspect.trace.modes import outermost
from peft_inspect.trace.operations import Operations
from peft_inspect.trace.values import all_zero, perturb_zeros, watching_tokens
from peft_inspect.trace.watching import Watchers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from peft_inspect.program.presence import Notes
    from peft_inspect.run.changes import Changes
    from peft_inspect.trace.grad_mode import GradSwitches
    from peft_inspect.trace.threads import Watcher


_KEPT = 1 << 30  # values of trained weights of which a copy is made


@dataclass
class Root:
    """One model in one step of the program, and what watches it."""

    model: nn.Module
    called: Source | None
    structure: Structure
    layers: AdapterLayers
    watchers: Watchers
    updates: Updates
    trains: bool = False  # it was called with gradients on
    backwards: int = 0
    ended: bool = False
    never_stepped: bool = False
    arrivals: Arrivals | None = None
    batch: BatchInfo | None = None
    losses: list[LossInfo] = field(default_factory=list)
    rows: dict[str, GradientInfo] = field(default_factory=dict)
    stepped: set[int] = field(default_factory=set)  # ids of what optimizers with weights of its adapters hold that have stepped
    foreign: dict[int, int] = field(default_factory=dict)  # steps of optimizers that hold none of its weights
    gated: bool = False  # something beside the adapters is trained from zero: what it multiplies gets zeros until it has moved
    absent: dict[nn.Module, bool] = field(default_factory=dict)  # embeddings none of whose trained tokens is in the batch
    connected: set[int] = field(default_factory=set)  # ids of weights that a gradient reached
    in_graph: set[int] = field(default_factory=set)  # ids of weights that the loss is connected to
    _files: tuple[AdapterFile, ...] = ()
    changes: Changes | None = None
    _before: dict[str, tuple[int, int]] = field(default_factory=dict)  # gradients that are there when a backward begins
    _versions: dict[str, int] = field(default_factory=dict)
    _passed: dict[str, Tensor] = field(default_factory=dict)  # gradients that something takes away in the backward itself
    _watching: Apart = field(default_factory=Apart)
    _operations: Apart = field(default_factory=Apart)
    _calls: Apart = field(default_factory=Apart)
    hidden: bool = False  # in compiled code, where nothing was watched
    _mode: Operations | None = None
    _manner: Manner | None = None
    followed: FollowedStep | None = None
    _kept: dict[str, Tensor] = field(default_factory=dict)  # values before a step that writes others than numbers into them
    _handles: list[Any] = field(default_factory=list)

    @classmethod
    def begin(cls, model: nn.Module, module: nn.Module, args: tuple[Any, ...], notes: Notes, manner: Manner | None = None) -> Root:
        """Watch from this call of `module` on, which is the model or a part of it, or a runtime's wrapper; more closely in a `manner`."""
        structure = read_structure(Subject(model, class_of(inside(model)).__name__, changes=notes.changes))
        layers = AdapterLayers(model, structure)
        watchers = Watchers(structure, layers, notes.switches, notes.changes.states)
        root = cls(model, source(line_above(sys._getframe(1))), structure, layers, watchers, Updates(structure, layers.parameters))
        root._versions = {path: version_of(parameter) for path, parameter in root.adapter_parameters.items()}
        root.updates.made = notes.changes.built_by
        root.updates.begin()
        root._files = tuple(compared(file, model, structure) for file in notes.loads.files(model))
        root.changes = notes.changes
        root._manner = manner
        root._note_passing()
        root._calls.begin(watchers.calls.hooks())
        if any(isinstance(part, TrainableTokensLayer) for part in layers.modules.values()):
            root._watching.begin(watching_tokens(root.absent))
        if any(part is module for part in layers.modules.values()):
            watchers.calls.begin(module, args)
        return root

    def note_arrivals(self) -> None:
        """Note where gradients come from, too: in several processes, and where a runtime takes them away."""
        self.arrivals = arrivals = Arrivals(self.layers, self.structure)
        self._watching.begin(arrivals, Gathered(self.layers, self.watchers.reads))

    def _note_passing(self) -> None:
        """Where a hook acts on each gradient as it arrives, as optimizers in the backward do, note it before."""
        for path, parameter in self.adapter_parameters.items():
            if parameter.requires_grad and hooks_after_accumulation(parameter):
                self._handles.append(parameter.register_hook(partial(self._pass, path)))  # type: ignore[no-untyped-call]

    def _pass(self, path: str, gradient: Tensor) -> None:
        self._passed[path] = gradient.detach().clone()

    def zeros(self, trace: Trace) -> frozenset[str]:
        """The adapter layers with gradients of exact zeros, though the batch exercises them."""
        found = (layer.path for layer in all_zero(trace.structure, trace.gradient))
        return frozenset(path for path in found if not self.absent.get(self.layers.modules[path]))

    @property
    def adapter_parameters(self) -> Mapping[str, nn.Parameter]:
        """The live adapter weights, by path."""
        return {path: self.layers.parameters[path] for layer in self.structure.adapter_layers for path in layer.parameters}

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The adapter weights that require a gradient."""
        return [parameter for parameter in self.adapter_parameters.values() if parameter.requires_grad]

    def enter_call(self, args: tuple[Any, ...], switches: GradSwitches) -> None:
        """It is called: operations are watched from here to the backward."""
        if self._mode is None and not self.hidden:
            self._mode = Operations(None, self.watchers.reads)
            self._operations.begin(outermost(self._mode))
        if torch.is_grad_enabled() and not self.trains:
            self.trains = True
            if self._manner is not None and self._manner.scale == 1.0:
                if self._manner.perturbed:
                    perturb_zeros(self.model)
                self.followed = FollowedStep(self.model, self.layers, self.watchers.calls, switches, self._manner, args)
                self._watching.begin(*self.followed.begin())

    def hide(self) -> None:
        """Watch no calls and no operations of this step: compiled code runs."""
        self.hidden = True
        self.leave_operations()
        self._calls.end()

    def leave_operations(self) -> None:
        """Watch no operations until it is called again."""
        if self._mode is not None:
            self._operations.end()
            self._mode.over, self._mode = True, None

    @property
    def in_operation(self) -> list[Watcher]:
        """What watches it at the moment, thread by thread."""
        flow = [] if self.followed is None else [self.followed.flow]
        return [] if self._mode is None else [self.watchers.calls, self._mode, *flow]

    @property
    def scale(self) -> float:
        """What its loss is to be multiplied with."""
        return 1.0 if self._manner is None else self._manner.scale

    def called_with(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Describe the inputs of its first call."""
        if self.batch is None:
            named = dict(zip(inspect.signature(module.forward).parameters, args, strict=False))
            self.batch = describe({**named, **kwargs}, find_receiver(self.model).parameters, "the program")
            if self.followed is not None:
                self.followed.inputs = {**named, **kwargs}

    def before_backward(self, tensors: Iterable[Any]) -> None:
        """The loss of the program, or one of them."""
        self.leave_operations()
        losses = [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]
        for loss in losses:
            value = loss.detach().float().item() if loss.numel() == 1 else None
            self.losses.append(LossInfo(value, loss.grad_fn is not None, origin="the program's backward"))
        if self.followed is not None:
            self.in_graph |= self.followed.forward_ended(losses)
        self._before = self._gradients()
        self.watchers.calls.phase = "backward"

    def _gradients(self) -> dict[str, tuple[int, int]]:
        """Which gradients there are, and how often each was written into."""
        gradients = ((path, parameter.grad) for path, parameter in self.layers.parameters.items())
        return {path: (id(gradient), version_of(gradient)) for path, gradient in gradients if gradient is not None}

    def again(self, tensors: Iterable[Any]) -> None:
        """A backward inside it: a checkpointed block has run again."""
        if self.followed is not None:
            self.followed.again([tensor for tensor in tensors if isinstance(tensor, torch.Tensor)])

    def after_backward(self) -> None:
        """What has arrived so far. A later backward adds to it; what was cleared in between has arrived all the same."""
        self.watchers.calls.phase = "forward"
        self.backwards += 1
        parameters = self.layers.parameters
        taken = [(parameters[path], gradient) for path, gradient in self._passed.items() if parameters[path].grad is None]
        for parameter, gradient in taken:
            parameter.grad = gradient
        connected = {id(parameters[path]) for path, written in self._gradients().items() if self._before.get(path) != written}
        for row in read_gradients(parameters, self.structure, connected, values=True):
            earlier = self.rows.get(row.path)
            if earlier is None or row.arrived or not earlier.arrived:
                self.rows[row.path] = row
        if any(row.state == "zero" for row in self.rows.values()):
            beside = (info for info in self.structure.parameters if info.requires_grad and info.role != "adapter")
            self.gated = self.gated or any(not bool(parameters[info.path].any()) for info in beside)
        for parameter, _ in taken:
            parameter.grad = None
        self.connected |= connected

    @property
    def blind(self) -> frozenset[str]:
        """The adapter layers to train that ran in the forward, and never with gradients on."""
        calls = [call for call in self.watchers.calls.found() if call.phase == "forward" and not call.empty]
        trained = {layer.path for layer in self.structure.adapter_layers if self.structure.trainable(layer)}
        return frozenset(trained & {call.path for call in calls} - {call.path for call in calls if call.carries})

    def take_forward(self) -> None:
        """Its backward does not end: what its forward alone says of the gradients."""
        self.backwards += 1
        held = {path for layer in self.structure.adapter_layers if layer.path in self.blind for path in layer.parameters}
        connected = {id(parameter) for path, parameter in self.layers.parameters.items() if path not in held}
        self.rows = {row.path: row for row in read_gradients(self.layers.parameters, self.structure, connected, values=False)}

    @property
    def starves(self) -> bool:
        """Whether any adapter weight is without a gradient so far."""
        return any(self.rows[path].state not in ("ok", "zero-at-init") for path in self.adapter_parameters if path in self.rows)

    @property
    def changed_by_hand(self) -> bool:
        """Whether its weights were updated, or its gradients cleared, without an optimizer that tells."""
        parameters = self.adapter_parameters
        if any(version_of(parameter) != self._versions[path] for path, parameter in parameters.items()):
            return True
        cleared = any(row.arrived for row in self.rows.values()) and all(parameter.grad is None for parameter in parameters.values())
        return cleared and not optimizers_of(self.trainable)

    def before_step(self) -> None:
        """What an optimizer is about to use, and what it may write over with what is no number: in float16 Adam does so from zeros."""
        if not self._kept and any(row.state in ("nonfinite", "zero") for row in self.rows.values()):
            trained = {info.path: self.layers.parameters[info.path] for info in self.structure.parameters if info.requires_grad}
            if sum(parameter.numel() for parameter in trained.values()) < _KEPT:
                self._kept = {path: parameter.detach().clone() for path, parameter in trained.items()}
        self.updates.before_step()

    def take_back(self) -> None:
        """Have the values from before that step again where it has left what is no number."""
        with torch.no_grad():
            for path, values in self._kept.items():
                if not bool(torch.isfinite(self.layers.parameters[path]).all()):
                    self.layers.parameters[path].copy_(values)

    @property
    def has_no_loss(self) -> bool:
        """Whether the loss is no number, whatever a gradient scaler multiplies it with."""
        return any(loss.value is not None and not math.isfinite(loss.value) for loss in self.losses)

    def end(self) -> None:
        """Watch no longer."""
        if self.followed is not None:
            self.followed.ended()
        self.leave_operations()
        self._calls.end()
        self._watching.end()
        for handle in self._handles:
            handle.remove()

    def trace(self) -> Trace:
        """What was seen of its step."""
        self.structure = self.watchers.structure = self._with_optimizers()
        batch = self.batch or describe({}, (), "the program")
        trace = self.watchers.trace(batch, self.loss, tuple(self.rows.values()))
        arrived = frozenset(path for path, row in self.rows.items() if row.state == "ok")
        update = None if self._is_taken else self.updates.found(arrived)
        optimizer = source(self.changes.optimizer_by) if self.changes is not None else None
        unstepped = self.backwards if optimizer is not None and self.never_stepped and not self.updates.stepped else 0
        if unstepped:
            trace = replace(trace, structure=replace(trace.structure, optimizer_made=OptimizerOrigin(optimizer)))
        return replace(trace, unstepped=unstepped, update=update, adapter_files=self._files)

    @property
    def _is_taken(self) -> bool:
        """Whether a runtime takes gradients away as they arrive, and steps on copies of its own."""
        return self.arrivals is not None and self.arrivals.takes

    def _with_optimizers(self) -> Structure:
        """All optimizers that hold any weight of the model, of those that there are; else why it is not known what they hold."""
        parameters = self.layers.parameters
        optimizers = live_optimizers()
        held = {id(tensor) for optimizer in optimizers for tensor in held_by(optimizer)}
        known = frozenset(path for path, parameter in parameters.items() if id(parameter) in held)
        reasons = (unknown_holder(optimizer, parameters.values()) for optimizer in optimizers)
        unknown = None if known else next((reason for reason in reasons if reason), None) or held_as_copies(optimizers, self.trainable)
        holding = {id(parameter) for parameter in parameters.values()}
        first = next((other for other in optimizers if holds(other, holding)), next(iter(optimizers), None))
        made = None if self.changes is None else self.changes.origin(first, parameters.values())
        return replace(
            self.structure,
            optimizer=known if optimizers and unknown is None else None,
            optimizer_unknown=unknown,
            optimizer_made=made,
        )

    @property
    def loss(self) -> LossInfo:
        """The sum of what the program called `backward` on."""
        values = [loss.value for loss in self.losses if loss.value is not None]
        has_graph = any(loss.has_graph for loss in self.losses)
        return LossInfo(sum(values) if values else None, has_graph, origin="the program's backward")


def meant_to_train(roots: Iterable[Root]) -> list[Root]:
    """Those that are trained, or are meant to be: a reference beside one that trains is none of them."""
    seen = [root for root in roots if root.backwards]
    return [root for root in seen if root.trainable and (root.trains or optimizers_of(root.trainable))] or seen
