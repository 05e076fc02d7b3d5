"""What was built: one row per (module path, adapter), whatever the tuner; prompts and the like have one per module of weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftMixedModel, PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn

from peft_inspect.records import AdapterLayerInfo, Role
from peft_inspect.structure.plain import dtype_name
from peft_inspect.structure.shards import local
from peft_inspect.structure.wrappers import class_of, inside
from peft_inspect.walk import defined_in, parameters_of

if TYPE_CHECKING:
    from peft_inspect.structure.inventory import Inventory

_FLAGS = ("use_dora", "use_rslora", "lora_bias", "fan_in_fan_out", "init_weights")


Built = Mapping[str, Mapping[str, tuple[nn.Parameter, ...]]]
"""The parameters of each adapter, in the order in which they were added, by path of the adapter layer."""


def adapter_weights(inventory: Inventory) -> Built:
    """What the adapter layers of a model hold, and what the prompts, gates and classifiers of tuners without layers do."""
    layers = {path: _weights(module) for path, module in inventory.modules.items() if isinstance(module, BaseTunerLayer)}
    return layers | _beside_layers(inventory)


def adapter_rows(inventory: Inventory, built: Built, *, values: bool) -> Iterator[AdapterLayerInfo]:
    """One row per adapter layer and adapter in it. `values`: parameters may be read, to see which adapters hold the same."""
    for path, weights in built.items():
        for name, tensors in weights.items():
            earlier = list(weights)[: list(weights).index(name)] if values else []
            copied = next((other for other in earlier if _same(weights[other], tensors)), None)
            yield _row(path, inventory.modules[path], name, tensors, copied, inventory)


def adapter_roles(inventory: Inventory, built: Built) -> dict[str, tuple[Role, str | None]]:
    """Role and adapter name of every parameter that PEFT added or set aside, by parameter path."""
    roles: dict[str, tuple[Role, str | None]] = {}
    for path, module in inventory.modules.items():
        if isinstance(module, ModulesToSaveWrapper):
            roles.update(_of(module.original_module, "original", None, inventory))
            for name, copy in module.modules_to_save.items():
                roles.update(_of(copy, "saved", name, inventory))
        elif path in built:
            for name, weights in built[path].items():
                roles.update({inventory.parameter_path[id(weight)]: ("adapter", name) for weight in weights})
    return roles


def is_real(tensor: torch.Tensor) -> bool:
    """Whether a tensor has values that can be read; a weightless one says of itself that it has none."""
    return not tensor.is_meta and bool(getattr(tensor, "has_values", True))


def innermost_base(module: nn.Module) -> nn.Module:
    """What all adapter layers around it adapt; the module itself if it is no adapter layer."""
    while isinstance(module, BaseTunerLayer) and isinstance(base := module._modules.get("base_layer"), nn.Module):
        module = inside(base)
    return module


def _row(
    path: str, layer: Any, name: str, weights: tuple[torch.Tensor, ...], copy_of: str | None, inventory: Inventory
) -> AdapterLayerInfo:
    """One row. What holds weights beside the layers is its own base, and has no state but that its adapter is in use."""
    is_layer = isinstance(layer, BaseTunerLayer)
    base = innermost_base(layer)
    rank = _of_adapter(layer, "r", name)
    return AdapterLayerInfo(
        path=path,
        adapter=name,
        tuner=_tuner(layer),
        type=class_of(layer).__name__,
        base_type=class_of(base).__name__,
        base_path=inventory.module_path[id(base)],
        r=rank if isinstance(rank, int) else None,
        lora_alpha=_number(_first(layer, ("lora_alpha", "alpha"), name)),
        scaling=_number(_of_adapter(layer, "scaling", name)),
        active=name in layer.active_adapters if is_layer else name == _adapter_in_use(path, inventory),
        merged=is_layer and name in layer.merged_adapters,
        enabled=not is_layer or not layer.disable_adapters,
        parameters=tuple(dict.fromkeys(inventory.parameter_path[id(weight)] for weight in weights)),
        parameter_name=getattr(layer, "parameter_name", None),
        copy_of=copy_of,
        dtype=dtype_name(weights[0].dtype) if weights else "float32",
        details={flag: value for flag in _FLAGS if (value := _of_adapter(layer, flag, name)) is True},
    )


def _beside_layers(inventory: Inventory) -> dict[str, dict[str, tuple[nn.Parameter, ...]]]:
    """Modules of PEFT's own that hold weights and are no adapter layers: prompt encoders, adaption prompts, X-LoRA's classifier."""
    found: dict[str, dict[str, tuple[nn.Parameter, ...]]] = {}
    taken = ""
    for path, module in inventory.modules.items():
        if taken and path.startswith(taken):
            continue
        if isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)):
            taken = f"{path}."
        elif weights := _own_weights(module):
            found[path] = {_adapter_of(path, inventory): weights}
            taken = f"{path}."
    return found


def holds_adapter(module: nn.Module) -> bool:
    """Whether a module is an adapter layer, or holds adapter weights beside such layers."""
    return isinstance(module, BaseTunerLayer) or bool(_own_weights(module))


def prompted(modules: Iterable[nn.Module]) -> dict[int, PeftModel]:
    """The `id` of each prompt encoder among these, and the model that puts what it makes before the inputs of its base model."""
    holders = (module for module in modules if isinstance(module, PeftModel) and "prompt_encoder" in module._modules)
    return {id(encoder): holder for holder in holders for encoder in holder.prompt_encoder.values()}


def _own_weights(module: nn.Module) -> tuple[nn.Parameter, ...]:
    """The weights in a module of PEFT's: those that it registers itself where it stands around one of the model's, else all.

    What it keeps frozen beside trained ones, as CPT does with the embeddings of its tokens, is not meant to be trained.
    """
    if defined_in(type(module)).partition(".")[0] != "peft" or isinstance(module, (PeftModel, PeftMixedModel, BaseTuner)):
        return ()
    if any(isinstance(inner, BaseTunerLayer) for inner in module.modules()):  # a wrapper around layers, which have rows of their own
        return ()
    around = any(defined_in(type(inner)).partition(".")[0] not in ("peft", "torch") for inner in module.modules())
    weights = tuple(module.parameters(recurse=not around))
    return tuple(weight for weight in weights if weight.requires_grad) or weights


def _adapter_of(path: str, inventory: Inventory) -> str:
    """The adapter that such a module belongs to: the key that it stands under, or the one in use."""
    name = path.rpartition(".")[2]
    owner = _owner_of(path, inventory)
    return name if owner is None or name in owner.peft_config else _adapter_in_use(path, inventory)


def _adapter_in_use(path: str, inventory: Inventory) -> str:
    owner = _owner_of(path, inventory)
    active: Any = None if owner is None else owner.active_adapter
    return active if isinstance(active, str) else path.rpartition(".")[2]


def _owner_of(path: str, inventory: Inventory) -> PeftModel | BaseTuner | None:
    """What holds the configs nearest above a path."""
    while path:
        path = path.rpartition(".")[0]
        if isinstance(owner := inventory.modules.get(path), (PeftModel, BaseTuner)):
            return owner
    return None


def _tuner(layer: nn.Module) -> str:
    """The PEFT type, from the room of PEFT that the class (or the class it is derived from) lives in."""
    for cls in type(layer).__mro__:
        parts = defined_in(cls).split(".")
        if parts[:2] == ["peft", "tuners"] and len(parts) > 3:
            return parts[2].upper()
    return type(layer).__name__.upper()


def _weights(layer: Any) -> dict[str, tuple[nn.Parameter, ...]]:
    """The parameters of each adapter in one layer."""
    found: dict[str, list[nn.Parameter]] = {}
    for attribute in layer.adapter_layer_names:
        container = layer._modules[attribute] if attribute in layer._modules else getattr(layer, attribute, None)
        if isinstance(container, (nn.ModuleDict, nn.ParameterDict)):
            for name, held in container.items():
                found.setdefault(name, []).extend(_parameters(held))
    return {name: tuple(weights) for name, weights in found.items()}


def _parameters(held: object) -> Iterable[nn.Parameter]:
    if isinstance(held, nn.Parameter):
        return (held,)
    return parameters_of(held) if isinstance(held, nn.Module) else ()


def _of(module: nn.Module, role: Role, name: str | None, inventory: Inventory) -> dict[str, tuple[Role, str | None]]:
    return {inventory.parameter_path[id(weight)]: (role, name) for weight in module.parameters()}


def _of_adapter(layer: object, attribute: str, name: str) -> Any:
    """An attribute that some tuners keep per adapter and others once."""
    value = getattr(layer, attribute, None)
    return value.get(name) if isinstance(value, Mapping) else value


def _first(layer: object, attributes: tuple[str, ...], name: str) -> Any:
    return next((value for attribute in attributes if (value := _of_adapter(layer, attribute, name)) is not None), None)


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor):
        value = value.item() if is_real(value) and value.numel() == 1 else None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _same(one: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...]) -> bool:
    """Whether two adapters hold exactly the same values, as far as they lie in this process."""
    if len(one) != len(other) or not one or not all(map(is_real, (*one, *other))):
        return False
    return all(
        a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and a.numel() and torch.equal(a, b)
        for a, b in zip(map(local, one), map(local, other), strict=True)
    )
