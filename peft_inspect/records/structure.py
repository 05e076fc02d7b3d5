"""The model as it is built: its modules, parameters, adapters, towers and stacks of blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from peft_inspect.records.basics import Mode, Source, Weights

ModuleKind = Literal[
    "peft-model", "tuner", "adapter-layer", "linear", "embedding", "conv", "norm", "experts", "router", "container", "other"
]
Role = Literal["base", "adapter", "saved", "original", "other"]


@dataclass(frozen=True)
class ModuleInfo:
    """One module object. `aliases` are the other attribute paths that lead to the same object."""

    path: str
    type: str  # class name
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
class ConfigEntry:
    """One entry of a PEFT config field, and what it reached."""

    field: str  # target_modules, target_parameters, exclude_modules, modules_to_save, rank_pattern, alpha_pattern, layers_to_transform
    entry: str
    matched: tuple[str, ...]  # module paths; what the entry ended up on
    dropped: tuple[str, ...] = ()  # matched by name, then dropped by layers_to_transform or exclude_modules
    by_tower: Mapping[str, int] = dataclasses.field(default_factory=dict)  # `field` is taken here
    missed: tuple[str, ...] = ()  # within a stack where it hits others
    closest: tuple[str, ...] = ()  # names that exist, nearest first
    rewritten: tuple[str, ...] = ()  # matched by name, and left out because PEFT rewrote the entry for fused experts
    regex: bool = False  # the field as it was asked for is this one regular expression, whatever PEFT made of it, and no list
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
    targets: tuple[ConfigEntry, ...] = ()
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
    kind: Literal["linear", "experts", "embedding", "conv", "parameter"]  # parameter: of a module that is no layer, such as a router
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
class WeightRead:
    """A parent's forward source that reads `.weight` of an adapted child."""

    layer: str
    parent: str
    source: Source


@dataclass(frozen=True)
class OptimizerOrigin:
    """How an optimizer was made, where that was watched."""

    source: Source | None
    wrapped: Source | None = None  # the line that put the adapter into the model, where that came later
    used_up: Source | None = None  # a generator that had nothing left when the optimizer read it


@dataclass(frozen=True)
class Activation:
    """What a module handed on in one forward, and what that cost."""

    output: str  # the shape of the first tensor of it, as it is shown
    macs: int  # multiply-adds, those of the modules inside it included


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
    activations: Mapping[str, Activation] = field(default_factory=dict)  # by module path, where they were asked for
    optimizer: frozenset[str] | None = None  # paths of the parameters that the optimizer holds; None: no optimizer given
    optimizer_unknown: str | None = None  # why it cannot be told what the optimizer holds
    copied: Mapping[str, str] = field(default_factory=dict)  # weights of adapters that are deep copies, by path, and whose
    optimizer_made: OptimizerOrigin | None = None  # None: nobody watched
    called_by: Source | None = None  # the line of a program that trains this model, which holds no adapter
    adapted_by: Source | None = None  # the line that put an adapter on another model than this one
    source_file: str | None = None
    entry: Source | None = None
    notes: tuple[str, ...] = ()
    coverage: tuple[Coverage, ...] = ()
    ties: tuple[Tie, ...] = ()
    weight_reads: tuple[WeightRead, ...] = ()  # in the source of forwards, whether or not a run takes that path
    reached: frozenset[str] | None = None  # adapter layers that got a gradient when a step ran; None: none ran

    @cached_property
    def module(self) -> Mapping[str, ModuleInfo]:
        """Modules by path."""
        return {module.path: module for module in self.modules}

    @cached_property
    def parameter(self) -> Mapping[str, ParameterInfo]:
        """Parameters by path."""
        return {parameter.path: parameter for parameter in self.parameters}

    @property
    def optimizer_by(self) -> Source | None:
        """The line that made the optimizer, where that was seen."""
        return None if self.optimizer_made is None else self.optimizer_made.source

    @cached_property
    def averages(self) -> frozenset[str]:
        """Paths of deep copies of trained weights, as moving averages keep them: they belong in no optimizer, and are in none."""
        held = self.optimizer or frozenset()
        return frozenset(path for path, original in self.copied.items() if original in held and path not in held)

    def trainable(self, layer: AdapterLayerInfo) -> bool:
        """Whether any weight of this adapter in this layer requires a gradient."""
        return any(self.parameter[path].requires_grad for path in layer.parameters)

    def is_prompt(self, path: str) -> bool:
        """Whether the adapter weights at `path` stand beside all layers of the base model: a prompt, a prefix."""
        return any(layer.path == layer.base_path == path for layer in self.adapter_layers)

    def training_of(self, path: str) -> bool:
        """Whether the module at `path` is in train mode."""
        return path in self.module and self.module[path].training

    def tower_of(self, path: str) -> str:
        """The path of the innermost tower that holds this module; "" outside every tower."""
        holding = [tower.path for tower in self.towers if path == tower.path or path.startswith(tower.path + ".")]
        return max(holding, key=len, default="")
