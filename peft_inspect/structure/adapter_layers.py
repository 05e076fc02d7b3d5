"""What was built: one row per (module path, adapter), whatever the tuner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import nn

from peft_inspect.records import AdapterLayerInfo, Role
from peft_inspect.structure.plain import dtype_name
from peft_inspect.structure.shards import local
from peft_inspect.structure.wrappers import class_of, inside
from peft_inspect.walk import parameters_of

if TYPE_CHECKING:
    from peft_inspect.structure.inventory import Inventory

_FLAGS = ("use_dora", "use_rslora", "lora_bias", "fan_in_fan_out", "init_weights")


Built = Mapping[str, Mapping[str, tuple[nn.Parameter, ...]]]
"""The parameters of each adapter, in the order in which they were added, by path of the adapter layer."""


def adapter_weights(inventory: Inventory) -> Built:
    """What the adapter layers of a model hold."""
    return {path: _weights(module) for path, module in inventory.modules.items() if isinstance(module, BaseTunerLayer)}


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
        active=name in layer.active_adapters,
        merged=name in layer.merged_adapters,
        enabled=not layer.disable_adapters,
        parameters=tuple(dict.fromkeys(inventory.parameter_path[id(weight)] for weight in weights)),
        parameter_name=getattr(layer, "parameter_name", None),
        copy_of=copy_of,
        dtype=dtype_name(weights[0].dtype) if weights else "float32",
        details={flag: value for flag in _FLAGS if (value := _of_adapter(layer, flag, name)) is True},
    )


def _tuner(layer: BaseTunerLayer) -> str:
    """The PEFT type, from the room of PEFT that the class (or the class it is derived from) lives in."""
    for cls in type(layer).__mro__:
        parts = cls.__module__.split(".")
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
