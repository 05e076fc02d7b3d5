"""Who holds PEFT configs: PeftModels anywhere in the model, bare tuners, and models that PEFT injected adapters into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft import PeftMixedModel, PeftModel
from peft.tuners.tuners_utils import BaseTuner

from peft_inspect.records import AdapterInfo
from peft_inspect.structure.plain import config_values
from peft_inspect.structure.wrappers import inside

if TYPE_CHECKING:
    from torch import nn

    from peft_inspect.records import AdapterLayerInfo
    from peft_inspect.structure.inventory import Inventory


@dataclass(frozen=True)
class Owner:
    """A module with PEFT configs by adapter name, and the path of the base model that they speak of."""

    path: str
    module: nn.Module
    configs: Mapping[str, Any]
    base_path: str


def owners_of(inventory: Inventory) -> tuple[Owner, ...]:
    """The outermost holder of each set of configs; PeftModel, tuner and base model share one set."""
    found: dict[int, Owner] = {}
    for path, module in inventory.modules.items():
        configs = _configs(module)
        if configs and id(configs) not in found:
            found[id(configs)] = Owner(path, module, configs, base_of(path, inventory))
    return tuple(found.values())


def base_of(path: str, inventory: Inventory) -> str:
    """The path of the base model inside all PeftModels and tuners at `path`; `path` itself where there is none."""
    module = inventory.modules[path]
    while isinstance(module, (PeftModel, PeftMixedModel, BaseTuner)):
        name = "model" if isinstance(module, BaseTuner) else "base_model"
        child = module._modules.get(name)
        if child is None:
            return path
        module, path = inside(child), inventory.module_path[id(child)]
    return path


def adapter_infos(owners: Iterable[Owner], layers: Iterable[AdapterLayerInfo]) -> Iterator[AdapterInfo]:
    """What each adapter's config asked for; the target table is added elsewhere."""
    layers = tuple(layers)
    for owner in owners:
        for name, config in owner.configs.items():
            kind = getattr(config, "peft_type", None)
            yield AdapterInfo(
                name=name,
                owner=owner.path,
                type=str(getattr(kind, "value", kind)),
                config=config_values(config),
                active=_active(owner, name, layers),
                inference_mode=bool(getattr(config, "inference_mode", False)),
                prompt_learning=any(getattr(config, field, False) for field in ("is_prompt_learning", "is_adaption_prompt")),
                base=owner.base_path,
            )


def _configs(module: nn.Module) -> Mapping[str, Any] | None:
    """The PEFT configs a module holds itself. Wrappers forward unknown attributes, so it is asked where it keeps them."""
    if isinstance(module, (PeftModel, PeftMixedModel)):
        configs: Any = module.peft_config
    else:
        configs = vars(module).get("peft_config")
    if isinstance(configs, Mapping) and all(hasattr(config, "peft_type") for config in configs.values()):
        return configs
    return None


def _active(owner: Owner, name: str, layers: tuple[AdapterLayerInfo, ...]) -> bool:
    """As its layers say; an adapter without layers (prompt learning) is active where its owner says so."""
    below = f"{owner.path}." if owner.path else ""
    states = [layer.active for layer in layers if layer.adapter == name and layer.path.startswith(below)]
    if states:
        return any(states)
    active = getattr(owner.module, "active_adapter", ()) if isinstance(owner.module, (PeftModel, BaseTuner)) else ()
    return name == active if isinstance(active, str) else not callable(active) and name in active
