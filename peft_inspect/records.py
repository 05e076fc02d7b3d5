"""What flows between the rooms: frozen records of plain data, standard library only.

    load → Subject → structure → Structure → trace → Trace → diagnose → Diagnosis → formats

`Subject` is the one exception: it holds the live model, and never leaves `load` and `observe`.
Module paths are those of the live object that was inspected: `root.get_submodule(path)` accepts them.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    import torch

Weights = Literal["none", "random", "pretrained", "user"]
Mode = Literal["train", "eval", "mixed"]


class Severity(str, enum.Enum):
    """How much a finding matters, most severe first."""

    ERROR = "error"  # training or loading does not do what was asked
    WARNING = "warning"  # probably not what was meant
    NOTE = "note"  # worth seeing

    @property
    def rank(self) -> int:
        """0 for the most severe."""
        return list(Severity).index(self)

    def __str__(self) -> str:
        return self.value


class InspectionError(Exception):
    """The one error a user can mend: what was tried, what was found, what to do.

    `detail` is shown under the message as it stands: the user's own traceback, for instance.
    """

    def __init__(self, message: str, *, detail: str | None = None) -> None:
        super().__init__(message)
        self.detail = detail


# --- what the user named -------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What the user asked to have inspected, as given on the command line; `load` turns it into a `Subject`."""

    model: str | None = None  # every MODEL form; None: the model id that the LoRA file names
    lora: str | None = None  # a LoRA or trainer config file
    lora_fields: Mapping[str, Any] = field(default_factory=dict)  # LoraConfig fields from flags; they win over the file
    config_fields: Mapping[str, Any] = field(default_factory=dict)  # model config overrides, dotted keys
    adapter: str | None = None  # a folder or hub id to load onto the model, or to check against it
    base: str | None = None  # overrides the base model that an adapter names
    base_class: str | None = None  # check against this class instead of the one trained on
    weights: Literal["none", "random", "pretrained"] | None = None  # None: the default of the MODEL form
    reduce: bool = False  # shrink the config consistently
    batch: str | None = None  # a file, or file.py:callable
    loss: str | None = None  # file.py:callable
    optimizer: str | None = None  # file.py:callable
    text: str | None = None  # the user's own content for the batch, through local processor files
    image: str | None = None
    audio: str | None = None
    trust_remote_code: bool = False


@dataclass
class Subject:
    """The live model and what is run with it. The only mutable record; never leaves `load` and `observe`."""

    model: torch.nn.Module
    source: str  # as the user named it, or the class for a live object
    weights: Weights = "user"
    batch: Mapping[str, Any] | None = None  # keyword inputs; None: made from signature and config
    loss: Callable[[Any, Any], torch.Tensor] | None = None
    optimizer: torch.optim.Optimizer | None = None
    adapter_files: tuple[AdapterFile, ...] = ()
    requested: Mapping[str, Any] | None = None  # the LoRA fields that were asked for, when the tool did the wrapping
    source_file: str | None = None  # config or script that findings without a line of code are shown on
    notes: tuple[str, ...] = ()  # what loading decided and the report should say ("recognised axolotl YAML", "reduced to …")
    content: Mapping[str, str] = field(default_factory=dict)  # text / image / audio paths of the user for the batch
    folder: str | None = None  # local folder with tokenizer and processor files, when there is one
    base_name: str | None = None  # where MODEL is an adapter: its base, as it was named
    batch_by: str = "user"  # who made the batch, where there is one


# --- structure ----------------------------------------------------------------------------------

ModuleKind = Literal[
    "peft-model", "tuner", "adapter-layer", "linear", "embedding", "conv", "norm", "experts", "router", "container", "other"
]
Role = Literal["base", "adapter", "saved", "original", "other"]


@dataclass(frozen=True)
class Source:
    """A line of code: the frame nearest to the fault that is neither torch nor PEFT itself."""

    file: str
    line: int
    function: str
    code: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class ModuleInfo:
    """One module object. `aliases` are the other attribute paths that lead to the same object."""

    path: str
    type: str  # class name
    defined_in: str  # the Python module of the class
    kind: ModuleKind
    training: bool
    aliases: tuple[str, ...] = ()
    routes: bool = False  # chooses among experts
    fresh: bool = False  # added to a pretrained model, or a head on top of one: nothing that its checkpoint brings
    has_forward: bool = True  # False for lists and dicts of modules, which nobody calls


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter object. `aliases` are the other paths of the same tensor: ties and shared modules."""

    path: str
    module: str  # path of the module that registers it
    shape: tuple[int, ...]
    dtype: str
    device: str
    requires_grad: bool
    role: Role  # base weight · adapter weight · trained copy in modules_to_save · its frozen original · outside any PEFT model
    adapter: str | None = None
    aliases: tuple[str, ...] = ()
    quantization: str | None = None
    numel: int = 0
    itemsize: int = 4  # bytes per element
    zero: bool | None = None  # every value is exactly zero; None where values are not known or not looked at

    @property
    def nbytes(self) -> int:
        """Bytes the values take."""
        return self.numel * self.itemsize


@dataclass(frozen=True)
class Target:
    """One entry of a PEFT config field, and what it reached."""

    field: str  # target_modules, target_parameters, exclude_modules, modules_to_save, rank_pattern, alpha_pattern, layers_to_transform
    entry: str
    matched: tuple[str, ...]  # module paths; what the entry ended up on
    dropped: tuple[str, ...] = ()  # matched by name, then dropped by layers_to_transform or exclude_modules
    by_tower: Mapping[str, int] = dataclasses.field(default_factory=dict)  # `field` is taken here
    missed: tuple[str, ...] = ()  # within a stack where it hits others
    closest: tuple[str, ...] = ()  # names that exist, nearest first
    rewritten: tuple[str, ...] = ()  # matched by name, and left out because PEFT rewrote the entry for fused experts
    names: tuple[str, ...] = ()  # the matched modules (or parameters) as the config has to spell them: relative to the base model


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter's config asked for."""

    name: str
    owner: str  # path of the PeftModel, or of the model that holds peft_config
    type: str  # LORA, ADALORA, LOHA …
    config: Mapping[str, Any]  # the PEFT config as plain JSON values
    active: bool
    inference_mode: bool
    prompt_learning: bool = False
    targets: tuple[Target, ...] = ()
    parameters: int = 0  # elements of its weights, trained copies in modules_to_save included
    trainable: int = 0  # of these, the ones that require a gradient
    converted: bool = False  # PEFT rewrote its targets for fused experts
    base: str = ""  # path of the base model: what the names in the config are relative to
    all_linear: bool = False  # its entries together name every linear layer


@dataclass(frozen=True)
class AdapterLayerInfo:
    """What was built: one row per (module path, adapter)."""

    path: str
    adapter: str
    tuner: str  # LORA, LOHA …
    type: str  # class of the adapter layer
    base_type: str  # class of the innermost base layer
    base_path: str  # path of the innermost base layer
    r: int | None
    lora_alpha: float | None
    scaling: float | None
    active: bool
    merged: bool
    enabled: bool
    parameters: tuple[str, ...]  # paths of its adapter parameters
    parameter_name: str | None = None  # target_parameters: the base parameter it adapts
    copy_of: str | None = None  # another adapter of this layer that holds exactly the same values
    dtype: str = "float32"
    details: Mapping[str, Any] = field(default_factory=dict)  # use_dora, use_rslora, fan_in_fan_out …
    asked: bool = True  # some config still asks for it
    name: str = ""  # as a config has to spell it: the module's path within the base model before wrapping


@dataclass(frozen=True)
class BlockStack:
    """A list of repeated blocks."""

    path: str
    indices: tuple[int, ...]
    types: tuple[str, ...]  # class of each block, by position


@dataclass(frozen=True)
class Tower:
    """A top-level sub-network with its own stack of blocks: language model, vision, audio, decoder."""

    path: str
    type: str
    stacks: tuple[BlockStack, ...]  # none: a projector between towers
    family: str = ""  # equal for towers that are one model together, such as encoder and decoder


@dataclass(frozen=True)
class Carried:
    """What one adapter has of one sort of layer."""

    adapter: str
    layers: int
    indices: tuple[int, ...]  # blocks in which it has such a layer
    ranks: tuple[int, ...]  # as built, each once; PEFT changes the rank for some fused experts
    parameters: int  # elements of the base weights


@dataclass(frozen=True)
class Coverage:
    """One sort of layer in one sort of block: which of them carry an adapter and which do not."""

    tower: str  # "" outside every tower
    stack: str  # "" outside every stack
    block: str  # class of the block
    part: str  # class of the module that the layer belongs to: LlamaAttention, MixtralExperts
    name: str  # path within the block, an expert parameter included; outside stacks, within the base model
    kind: Literal["linear", "experts", "embedding", "conv"]
    layers: tuple[str, ...]  # their paths; of an expert parameter, the path of the module that holds it
    adapted: tuple[str, ...]  # the same, of those that carry an adapter
    indices: tuple[int, ...]  # blocks that have such a layer
    adapted_indices: tuple[int, ...]
    parameters: int  # elements of the base weights
    adapted_parameters: int
    carried: tuple[Carried, ...] = ()  # the same for each adapter that has any of them
    routes: bool = False  # it chooses among experts
    head: bool = False  # the output layer
    read: bool = False  # the code of the module it belongs to reads its weight, so that an adapter may never run


@dataclass(frozen=True)
class Tie:
    """Base weights that the base model keeps as one tensor."""

    parameters: tuple[str, ...]  # live paths of what each side computes with now
    names: tuple[str, ...]  # the same as module names within the base model
    one_tensor: bool
    adapted: tuple[str, ...] = ()  # adapter layers on either side
    one_sided: bool = False  # some side carries an adapter and some other does not


@dataclass(frozen=True)
class Structure:
    """What is there, read without running anything; works without weights."""

    root_type: str
    base_type: str
    modules: tuple[ModuleInfo, ...]
    parameters: tuple[ParameterInfo, ...]
    adapters: tuple[AdapterInfo, ...]
    adapter_layers: tuple[AdapterLayerInfo, ...]
    towers: tuple[Tower, ...] = ()
    mode: Mode = "train"
    weights: Weights = "user"
    model_config: Mapping[str, Any] = field(default_factory=dict)  # the base model's config as plain JSON values
    optimizer: frozenset[str] | None = None  # paths of the parameters that the optimizer holds; None: no optimizer given
    source_file: str | None = None
    notes: tuple[str, ...] = ()
    coverage: tuple[Coverage, ...] = ()
    ties: tuple[Tie, ...] = ()
    weight_reads: tuple[WeightRead, ...] = ()  # in the source of forwards, whether or not a run takes that path

    @cached_property
    def module(self) -> Mapping[str, ModuleInfo]:
        """Modules by path."""
        return {module.path: module for module in self.modules}

    @cached_property
    def parameter(self) -> Mapping[str, ParameterInfo]:
        """Parameters by path."""
        return {parameter.path: parameter for parameter in self.parameters}

    def trainable(self, layer: AdapterLayerInfo) -> bool:
        """Whether any weight of this adapter in this layer requires a gradient."""
        return any(self.parameter[path].requires_grad for path in layer.parameters)

    def tower_of(self, path: str) -> str:
        """The path of the innermost tower that holds this module; "" outside every tower."""
        holding = [tower.path for tower in self.towers if path == tower.path or path.startswith(tower.path + ".")]
        return max(holding, key=len, default="")


# --- trace --------------------------------------------------------------------------------------

RegionKind = Literal["no_grad", "inference_mode", "set_grad_enabled", "reentrant-checkpoint", "autograd-function", "before"]
CutKind = Literal["detach", "escape", "non-differentiable", "zero-derivative", "no-grad-region"]
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

    @property
    def trains(self) -> bool:
        """Whether this pass can carry gradients: they were on, or activation checkpointing runs it again with gradients."""
        region = self.region
        checkpointed = (
            region is not None and region.kind in ("reentrant-checkpoint", "autograd-function") and region.inputs_require_grad is True
        )
        return self.phase == "forward" and self.reaches_loss is not False and (region is None or checkpointed)


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


@dataclass(frozen=True)
class GraphCut:
    """Where the way from adapter layers to the loss ends."""

    kind: CutKind
    layers: tuple[str, ...]
    operation: str
    source: Source | None


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
class LossInfo:
    """The tensor that was trained."""

    value: float | None
    has_graph: bool
    source: Source | None = None  # the line that made it, where it has no graph
    origin: str = "output.loss"  # output.loss, sum of outputs, or the user's callable


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
class NonFinite:
    """The first module, in execution order, that produced NaN or Inf."""

    path: str
    type: str
    phase: Literal["forward", "backward"]
    source: Source | None = None


@dataclass(frozen=True)
class WeightRead:
    """A parent's forward source that reads `.weight` of an adapted child."""

    layer: str
    parent: str
    source: Source


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
    weight_reads: tuple[WeightRead, ...] = ()
    waiting: Mapping[str, Source] = field(default_factory=dict)  # uncalled adapter layers, by the line that calls them for other inputs
    unused: frozenset[str] = frozenset()  # adapter layers that ran, and no data of theirs reaches the loss
    nonfinite: NonFinite | None = None
    underflow: frozenset[str] = frozenset()  # adapter layers whose gradients appear once the loss is scaled up
    dead_after_perturbing: frozenset[str] = frozenset()  # adapter layers with exact zeros that stay zero for any weights
    explained: frozenset[str] = frozenset()  # adapter layers that a more specific rule has explained already
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
        """Adapter layers in use none of whose weights got a gradient, and that no other rule has explained."""
        return tuple(
            layer
            for layer in self.structure.adapter_layers
            if layer.active and layer.path not in self.explained and layer.parameters and not self.reached(layer)
        )

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


# --- adapter files ------------------------------------------------------------------------------


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a safetensors header, and what its values say where they were read."""

    key: str
    shape: tuple[int, ...]
    dtype: str
    zero: bool | None = None
    finite: bool | None = None
    loads_as: str | None = None  # the key under which PEFT loads it, where that is not the file's own


@dataclass(frozen=True)
class AdapterFile:
    """An adapter on disk: its config, its safetensors header, and the layers it was meant for."""

    path: str
    config: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    adapter: str = "default"
    expected: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # key → shape that the model's adapter layers want
    layer_of: Mapping[str, str] = field(default_factory=dict)  # expected key → adapter layer path
    structure: Structure | None = None
    base: Mapping[str, Any] = field(default_factory=dict)  # name, class, depth, width of the base that was inspected
    new_modules: Mapping[str, str] = field(default_factory=dict)  # path of a trained or fresh module PEFT does not save → its key in a file
    in_memory: bool = False  # a loaded adapter seen in the live model, whose file was not named


# --- diagnosis ----------------------------------------------------------------------------------

Status = Literal["clean", "found", "skipped", "ignored", "crashed"]


@dataclass(frozen=True)
class Finding:
    """A fault with its facts."""

    code: str
    rule: str
    severity: Severity
    message: str
    modules: tuple[str, ...] = ()
    source: Source | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    fix: str = ""
    fix_verified: bool | None = None
    verified: str | None = None  # "384/384 with use_reentrant=False"
    remedy: str | None = None  # the name of the remedy in `observe.fixes` that tries the fix


@dataclass(frozen=True)
class Outcome:
    """What became of one rule, so that "no findings" can never mean "nothing ran"."""

    code: str
    rule: str
    status: Status
    why: str = ""
    severity: Severity | None = None  # of the rule
    help: str = ""  # the rule's page: its title, why it matters, what to do


@dataclass(frozen=True)
class Diagnosis:
    """All evidence and all conclusions, sorted, without a clock."""

    source: str
    structure: Structure
    trace: Trace | None
    findings: tuple[Finding, ...]
    outcomes: tuple[Outcome, ...]
    adapter_files: tuple[AdapterFile, ...] = ()

    def at_or_above(self, severity: Severity | str) -> tuple[Finding, ...]:
        """Findings at least as severe as `severity`; none for "never"."""
        if severity == "never":
            return ()
        limit = Severity(severity).rank
        return tuple(finding for finding in self.findings if finding.severity.rank <= limit)


class Placed(Protocol):
    """Evidence with a line of code."""

    @property
    def source(self) -> Source | None:
        """The line; None where there is none."""


P = TypeVar("P", bound=Placed)


def by_place(evidence: Iterable[P]) -> tuple[tuple[Source | None, tuple[P, ...]], ...]:
    """Evidence grouped by the function its line is in: one fault is one place. The line is the first of each group."""
    groups: dict[tuple[str, str] | None, list[P]] = {}
    for piece in evidence:
        groups.setdefault((piece.source.file, piece.source.function) if piece.source else None, []).append(piece)
    return tuple(
        (min((piece.source for piece in group if piece.source), key=lambda source: source.line, default=None), tuple(group))
        for group in groups.values()
    )


def runs_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The runs of consecutive numbers, each as its first and last, in order."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def modules_of(layers: Iterable[AdapterLayerInfo]) -> tuple[str, ...]:
    """The distinct paths of adapter layers, in order."""
    return tuple(dict.fromkeys(layer.path for layer in layers))
