"""What sort of module something is, by what it holds and where it stands rather than by a list of class names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft import PeftMixedModel, PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from peft_inspect.structure.adapter_layers import innermost_base
from peft_inspect.structure.quantization import is_packed_linear

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_inspect.records import ModuleKind
    from peft_inspect.structure.inventory import Inventory

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LINEARS = (nn.Linear, Conv1D)
_PLAIN = (*LINEARS, nn.Embedding, *CONVOLUTIONS)


def kind_of(module: nn.Module) -> ModuleKind:
    """The kind of one module, without its surroundings; routers are known by theirs, see `routers_of`."""
    of_class = _KIND_OF_CLASS[type(module)]
    if of_class is not None:
        return of_class
    if is_packed_linear(module):
        return "linear"
    if not has_forward(module) or isinstance(module, nn.Sequential):
        return "container"
    if not module._modules and "norm" in type(module).__name__.lower():
        return "norm"
    return "experts" if holds_experts(module) else "other"


class _Kinds(dict[type, "ModuleKind | None"]):
    """What the class of a module says of it by itself, found out once for each; None where its modules differ."""

    def __missing__(self, kind: type) -> ModuleKind | None:
        found = self[kind] = _kind_of_class(kind)
        return found


_KIND_OF_CLASS = _Kinds()


def _kind_of_class(kind: type) -> ModuleKind | None:
    if issubclass(kind, BaseTunerLayer):
        return "adapter-layer"
    if issubclass(kind, (*LINEARS, nn.Bilinear)):
        return "linear"
    if issubclass(kind, (nn.Embedding, nn.EmbeddingBag)):
        return "embedding"
    if issubclass(kind, CONVOLUTIONS):
        return "conv"
    if issubclass(kind, (PeftModel, PeftMixedModel)):
        return "peft-model"
    return "tuner" if issubclass(kind, BaseTuner) else None


def has_forward(module: nn.Module) -> bool:
    """Whether a module can be called; lists and dicts of modules cannot."""
    return getattr(type(module), "forward", None) is not nn.Module.forward  # the class of scripted modules does not tell theirs


def holds_experts(module: nn.Module) -> bool:
    """Whether a module keeps the weights of several experts as parameters of its own: nothing for `nn.Linear` to match."""
    if not module._parameters or isinstance(module, _PLAIN):
        return False
    named = "expert" in type(module).__name__.lower() or any("num_experts" in name for name in vars(module))
    stacked = any(parameter is not None and parameter.dim() >= 2 for parameter in module._parameters.values())
    return named and stacked and expert_count(module) > 1


def expert_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """The stacked matrices of a module that holds experts, without their biases."""
    held = {name: parameter for name, parameter in module._parameters.items() if parameter is not None and parameter.dim() >= 2}
    stacked = {name: parameter for name, parameter in held.items() if parameter.dim() >= 3}
    return stacked or held


def expert_count(module: nn.Module) -> int:
    """How many experts: as the module itself says, else the first dimension of its stacked weights; 1 for no experts."""
    for name, value in vars(module).items():
        if "num_experts" in name and "per" not in name and isinstance(value, int):
            return value
    return max((p.shape[0] for p in module._parameters.values() if p is not None and p.dim() == 3), default=1)


def routers_of(inventory: Inventory) -> Iterator[str]:
    """Paths of the modules beside experts that choose among them: every matrix in them has one row per expert, or just one."""
    for path, module in inventory.modules.items():
        if not module._modules or not any(_may_hold_experts(name, child) for name, child in module._modules.items()):
            continue
        children = inventory.children(path)
        count = max((_experts_in(name, child) for name, child in children.items()), default=1)
        if count > 1:
            for name, child in children.items():
                if _experts_in(name, child) == 1 and _chooses(child, count):
                    yield inventory.module_path[id(child)]


def _may_hold_experts(name: str, child: nn.Module | None) -> bool:
    """Cheap to ask of every child: by its name, or by parameters that no plain layer has."""
    return child is not None and ("expert" in name or holds_experts(innermost_base(child)))


def _experts_in(name: str, child: nn.Module) -> int:
    base = innermost_base(child)
    if isinstance(base, (nn.ModuleList, nn.ModuleDict)) and "expert" in name:
        experts = [type(expert) for expert in base.children() if next(expert.parameters(), None) is not None]  # a dropout may lie beside
        if len(set(experts)) == 1:
            return len(experts)
    return expert_count(base) if holds_experts(base) else 1


def _base_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of a module without those of the adapters in it."""
    base = innermost_base(module)
    yield from (parameter for parameter in base._parameters.values() if parameter is not None)
    for child in base.children():
        yield from _base_parameters(child)


def _chooses(module: nn.Module, count: int) -> bool:
    matrices = [parameter.shape for parameter in _base_parameters(module) if parameter.dim() >= 2]
    return bool(matrices) and all(len(shape) == 2 and shape[0] in (1, count) for shape in matrices)
