"""The model as it ran: calls, gradients, and the evidence of what stands between an adapter and the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from peft_inspect.records.adapter_file import AdapterFile
from peft_inspect.records.basics import Source
from peft_inspect.records.structure import AdapterLayerInfo, Structure, WeightRead

RegionKind = Literal["no_grad", "inference_mode", "set_grad_enabled", "reentrant-checkpoint", "autograd-function", "before"]
SWITCHES: frozenset[RegionKind] = frozenset(("no_grad", "inference_mode", "set_grad_enabled"))  # that a program turns itself
CutKind = Literal[
    "detach",
    "escape",
    "non-differentiable",
    "zero-derivative",
    "no-grad-region",
    "checkpoint-without-grad-input",
    "no-gradient-returned",  # a custom autograd function whose backward returns none
    "no-backward",  # an operation of a library that registered no derivative
    "raw-memory",  # a kernel was given addresses
    "untraced",  # what the layer computes moves the loss, and torch saw no way from one to the other
]
SUM_OF = "the sum of"  # how the origin of a loss begins that was made up for want of one
GradientState = Literal["ok", "zero", "zero-at-init", "none", "nonfinite", "frozen"]


@dataclass(frozen=True)
class GradRegion:
    """A stretch of the run with gradients switched off, and the line that switched them."""

    kind: RegionKind
    source: Source | None
    inputs_require_grad: bool | None = None  # for checkpoints and autograd functions: whether any tensor input did


@dataclass(frozen=True)
class CallInfo:
    """One call of one adapter layer."""

    order: int
    path: str
    caller: str | None  # path of the module whose forward made the call
    phase: Literal["forward", "backward"]  # backward: re-run by activation checkpointing
    region: GradRegion | None  # None: gradients were on
    enabled: bool
    merged: bool
    active: tuple[str, ...]
    input_requires_grad: bool
    output_requires_grad: bool
    adapter_used: frozenset[str] = frozenset()  # adapters whose weights an operation read during the call
    base_used: bool = False
    reaches_loss: bool | None = None  # data of its output flows into the loss; None: not looked at
    per_sample: bool = False  # the batch named the adapter of each sample, and `active` are those
    switched: Source | None = None  # the line that disabled or merged the layer or chose its adapter, if that was seen
    chosen: bool = False  # the step itself chose its adapter
    empty: bool = False  # for no token at all

    @property
    def carries(self) -> bool:
        """Whether this pass can carry gradients: they were on, or activation checkpointing runs it again with gradients."""
        region = self.region
        checkpointed = (
            region is not None and region.kind in ("reentrant-checkpoint", "autograd-function") and region.inputs_require_grad is True
        )
        return self.phase == "forward" and (region is None or checkpointed)

    @property
    def trains(self) -> bool:
        """Whether this pass can carry gradients, and its output is not known to be left out of the loss."""
        return self.carries and self.reaches_loss is not False


@dataclass(frozen=True)
class WeightUse:
    """Operations that read an adapted base weight outside its adapter layer, at one line."""

    layer: str
    parameter: str
    operation: str
    caller: str | None
    source: Source | None
    count: int
    in_tie: bool = False  # read by another module that registers the same parameter
    reference: bool = False  # under a switch that turns gradients off, as reference passes are


@dataclass(frozen=True)
class BaseCall:
    """A base layer that ran outside its adapter layer, or an adapter layer whose forward was replaced."""

    layer: str
    caller: str | None
    source: Source | None
    count: int
    patched: bool = False  # the layer ran, but its forward is not PEFT's
    reference: bool = False  # under a switch that turns gradients off, as reference passes are


@dataclass(frozen=True)
class CopyCall:
    """Another object that ran in the place of modules that carry adapters."""

    original: str  # path of the module that did not run
    copy: str | None  # path of what ran; None when it is registered nowhere
    type: str
    layers: tuple[str, ...]  # adapter layers below `original`
    same_values: bool | None  # base weights equal, so a copy; None where values are not known
    source: Source | None
    tied: bool = False  # its weights are the very same tensors


@dataclass(frozen=True)
class StandIn:
    """A tensor that did the work of adapter layers which nothing called, or which ran with other weights than their own."""

    layers: tuple[str, ...]
    what: str  # in words, by the name under which the model holds it
    operation: str
    source: Source | None
    matrix: bool  # one that holds theirs, so that their adapters can be applied to it
    how: Literal["copy", "output", "beside"]  # it holds their weights, or what they gave before the step; or their parent multiplies by it


@dataclass(frozen=True)
class GraphCut:
    """Where the way from adapter layers to the loss ends."""

    kind: CutKind
    layers: tuple[str, ...]
    operation: str
    source: Source | None
    called: Source | None = None  # where `source` is a line in the backward of a function: the one that calls this function
    through_python: bool = False  # values left torch there; only a run with other weights tells whether they come back


@dataclass(frozen=True)
class GradientInfo:
    """What one trainable or adapter parameter got from the backward."""

    path: str
    layer: str | None  # path of its adapter layer; None for other trainable parameters
    adapter: str | None
    state: GradientState
    norm: float | None = None  # L2 norm; None without weights or without a gradient

    @property
    def arrived(self) -> bool:
        """Whether it counts as a parameter with a gradient."""
        return self.state in ("ok", "zero", "zero-at-init")


@dataclass(frozen=True)
class LossTargets:
    """The class targets that cross entropies were given, as they were then: shifted, cut, masked."""

    total: int
    supervised: int  # of these, not the ignore index
    ignore_index: int


@dataclass(frozen=True)
class LossInfo:
    """The tensor that was trained."""

    value: float | None
    has_graph: bool
    source: Source | None = None  # the line that made it, where it has no graph
    origin: str = "output.loss"  # output.loss, sum of outputs, or the user's callable

    @property
    def is_sum(self) -> bool:
        """Whether it is the sum of the outputs, taken because there was no loss."""
        return self.origin.startswith(SUM_OF)


@dataclass(frozen=True)
class BatchInfo:
    """The inputs of the run."""

    inputs: Mapping[str, str]  # name → "int64[1, 16]"
    accepted: tuple[str, ...]  # parameter names of the model's forward
    made_by: str  # user, or how the tool made it
    labels: int | None = None  # label positions; None: no labels
    supervised: int | None = None  # of these, not the ignore index
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Birth:
    """Where gradients become zero, or stop being finite: what takes others and hands on only such."""

    how: Literal["operation", "hook", "cancellation"]  # a hook on a gradient; several paths whose gradients add up to zero
    layers: tuple[str, ...]
    operation: str
    source: Source | None
    module: str | None  # path of the module that performs it; None for one that the model does not hold, and for the loss
    factor: str = ""  # what is zero beside the gradient, in words: "the output of Dropout(p=1.0, inplace=False)"
    factor_source: Source | None = None
    inside: bool = False  # the adapter layer itself does it
    called: Source | None = None  # where `source` is a line in the backward of a function: the one that calls this function


@dataclass(frozen=True)
class NonFinite:
    """The first module, in execution order, that produced NaN or Inf."""

    path: str
    type: str
    phase: Literal["forward", "backward"]
    source: Source | None = None
    operation: str = ""
    weight: str = ""  # what was not finite before the run, in words: "the weight 'head.bias'"


@dataclass(frozen=True)
class Stationary:
    """No weight gets a gradient other than zero as the weights are."""

    births: tuple[Birth, ...]
    constants: tuple[Source, ...]  # lines that put a number in the place of what depends on the weights
    constant_inputs: tuple[str, ...]  # floating inputs of the batch that hold one and the same number throughout
    for_good: bool = False  # nor with other weights: what is compared moves together


@dataclass(frozen=True)
class Update:
    """What the optimizer's step did to one trained weight of an adapter, or to a sample of its values."""

    path: str
    held: bool  # by the optimizer that stepped
    lr: float | None  # that it stepped with
    scheduled_lr: float | None  # that a schedule starts from
    arrived: bool  # a gradient other than zero had reached it in the backward
    cleared: bool  # at the step it had none
    asked: int  # values whose gradient at the step was not zero
    stayed: int  # of these, the ones that are what they were
    moved: bool  # any value at all has changed
    spacing: float | None = None  # the median distance of what stayed to the next value that its dtype holds


@dataclass(frozen=True)
class OptimizerStep:
    """What the optimizer's step did to the weights of a model."""

    optimizer: str  # its class
    updates: tuple[Update, ...]  # of the trainable weights of adapters, trained copies in modules_to_save included
    base_moved: tuple[str, ...] = ()  # paths of frozen base weights that it wrote into
    cleared: Source | None = None  # the line that cleared gradients between the backward and the step
    schedule: int | None = None  # where a schedule stands that gives a learning rate of 0
    schedule_by: Source | None = None  # the line that made this schedule
    made_by: Source | None = None  # the line that made the optimizer
    stays_zero: bool = False  # it went on over several steps, and the learning rate is 0 still
    undone: frozenset[str] = frozenset()  # paths of weights that it moved, and that held their old values when the model had run again


@dataclass(frozen=True)
class Trace:
    """One forward and one backward, watched."""

    structure: Structure
    batch: BatchInfo
    loss: LossInfo
    gradients: tuple[GradientInfo, ...]
    calls: tuple[CallInfo, ...] = ()
    executed: frozenset[str] = frozenset()  # paths of the modules that ran in the forward
    weight_uses: tuple[WeightUse, ...] = ()
    base_calls: tuple[BaseCall, ...] = ()
    copies: tuple[CopyCall, ...] = ()
    cuts: tuple[GraphCut, ...] = ()
    stand_ins: tuple[StandIn, ...] = ()
    weight_reads: tuple[WeightRead, ...] = ()
    waiting: Mapping[str, Source] = field(default_factory=dict)  # uncalled adapter layers, by the line that calls them for other inputs
    layer_drop: Mapping[str, tuple[str, float]] = field(
        default_factory=dict
    )  # idle blocks, by the setting that leaves them out, and its value
    unused: frozenset[str] = frozenset()  # adapter layers that ran or whose weight was read, and no data of theirs reaches the loss
    references: frozenset[str] = frozenset()  # adapter layers of a teacher or reference model, without gradients on purpose
    nonfinite: NonFinite | None = None
    update: OptimizerStep | None = None  # None: no optimizer stepped, because the step was not that of a training program
    unstepped: int = 0  # backwards of a program that came to its end without a step of its optimizer
    targets: LossTargets | None = None  # looked at where gradients are zero or not finite
    underflow: frozenset[str] = frozenset()  # adapter layers whose gradients appear once the loss is scaled up
    dead_after_perturbing: frozenset[str] = frozenset()  # adapter layers with exact zeros that stay zero for any weights
    switched_since: Mapping[tuple[str, str], Source | None] = field(default_factory=dict)  # layer and adapter that is off at the backward
    zero_births: tuple[Birth, ...] = ()  # where the gradients of the layers of `zero_for_good` become zero
    stationary: Stationary | None = None
    adapter_files: tuple[AdapterFile, ...] = ()  # what the model was loaded with, or is compared with

    @cached_property
    def gradient(self) -> Mapping[str, GradientInfo]:
        """Gradients by parameter path."""
        return {gradient.path: gradient for gradient in self.gradients}

    @cached_property
    def calls_of(self) -> Mapping[str, tuple[CallInfo, ...]]:
        """Calls by adapter layer path, in order."""
        calls: dict[str, list[CallInfo]] = {}
        for call in self.calls:
            calls.setdefault(call.path, []).append(call)
        return {path: tuple(of_layer) for path, of_layer in calls.items()}

    @cached_property
    def dead(self) -> tuple[AdapterLayerInfo, ...]:
        """Adapter layers in use none of whose weights got a gradient."""
        return tuple(
            layer
            for layer in self.structure.adapter_layers
            if layer.active and layer.path not in self.references and layer.parameters and not self.reached(layer)
        )

    @property
    def zero_for_good(self) -> frozenset[str]:
        """Adapter layers that are connected to the loss and get exact zeros, which neither other weights nor a larger loss would change."""
        return self.dead_after_perturbing - self.underflow

    @cached_property
    def read_outside(self) -> frozenset[str]:
        """Paths of the layers whose base weight is read outside them, and not because it is tied."""
        return frozenset(use.layer for use in self.weight_uses if not use.in_tie)

    @cached_property
    def unreached(self) -> frozenset[str]:
        """Paths of the dead adapter layers, and of the modules in `modules_to_save` whose trained copy got no gradient."""
        saved: dict[str, bool] = {}
        for gradient in self.gradients:
            if gradient.layer is None and self.structure.parameter[gradient.path].role == "saved":
                wrapper = gradient.path.partition(".modules_to_save.")[0]
                saved[wrapper] = saved.get(wrapper, False) or gradient.arrived
        silent = {wrapper for wrapper, reached in saved.items() if not reached}
        return frozenset({layer.path for layer in self.dead} | silent)

    def kept_frozen(self, layer: AdapterLayerInfo) -> bool:
        """Whether its adapter is frozen as a whole, beside another active one that trains: a new adapter on top of an old one."""
        rows = self.structure.adapter_layers
        if any(row.adapter == layer.adapter and self.structure.trainable(row) for row in rows):
            return False
        return any(
            row.adapter != layer.adapter and row.active and self.reached(row)
            for other in rows
            if other.adapter == layer.adapter
            for row in self._rows_at.get(other.path, ())
        )

    @cached_property
    def _rows_at(self) -> Mapping[str, tuple[AdapterLayerInfo, ...]]:
        rows: dict[str, list[AdapterLayerInfo]] = {}
        for row in self.structure.adapter_layers:
            rows.setdefault(row.path, []).append(row)
        return {path: tuple(at_path) for path, at_path in rows.items()}

    def training_calls(self, layer: AdapterLayerInfo) -> tuple[CallInfo, ...]:
        """The calls of this layer that can carry gradients; reference passes are left out."""
        return tuple(call for call in self.calls_of.get(layer.path, ()) if call.trains)

    def topmost_idle(self, path: str) -> str:
        """The outermost module around `path` in which nothing ran; `path` itself where its parent ran."""
        parts = path.split(".")
        for end in range(1, len(parts)):
            around = ".".join(parts[:end])
            if around not in self._busy and self.structure.module[around].has_forward:
                return around
        return path

    @cached_property
    def _busy(self) -> frozenset[str]:
        """Paths of the modules that ran, or that hold one that ran."""
        return frozenset(".".join(path.split(".")[:end]) for path in self.executed for end in range(path.count(".") + 2))

    def reached(self, layer: AdapterLayerInfo) -> bool:
        """Whether any weight of this adapter in this layer got a gradient, zero or not."""
        return any(
            path in self.gradient and self.gradient[path].state != "none" and self.gradient[path].state != "frozen"
            for path in layer.parameters
        )
