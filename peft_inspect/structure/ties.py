"""Weights that a base model keeps as one tensor, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from peft.utils import ModulesToSaveWrapper

from peft_inspect.records import AdapterLayerInfo, Tie

if TYPE_CHECKING:
    from torch import nn

    from peft_inspect.structure.bare import BareModel
    from peft_inspect.structure.inventory import Inventory


def ties_of(bare: BareModel, rows: Iterable[AdapterLayerInfo], inventory: Inventory) -> Iterator[Tie]:
    """One row per set of weights that the base model ties: as its class declares, and as it is built."""
    layers: dict[str, list[AdapterLayerInfo]] = {}
    for row in rows:
        if row.path in bare.name_of:
            layers.setdefault(row.name, []).append(row)
    for names in _tied(bare):
        weights = [_effective(name, bare, inventory) for name in names]
        if None not in weights:
            modules = [name.rpartition(".")[0] for name in names]
            sides = [layers.get(module, []) for module in modules]
            matrix = inventory.parameters[inventory.parameter_path[id(weights[0])]].dim() > 1  # adapters change matrices
            yield Tie(
                parameters=tuple(inventory.parameter_path[id(weight)] for weight in weights),
                names=tuple(modules),
                one_tensor=len({id(weight) for weight in weights}) == 1,
                adapted=tuple(row.path for side in sides for row in side),
                one_sided=matrix and any(sides) and not all(sides),
            )


def _tied(bare: BareModel) -> Iterator[tuple[str, ...]]:
    """Sets of parameter names, the source first."""
    declared: Mapping[str, str] = getattr(bare.modules[""], "all_tied_weights_keys", None) or {}
    groups: dict[str, list[str]] = {}
    for target, source in declared.items():
        if target in bare.holder and source in bare.holder and target != source:
            groups.setdefault(source, []).append(target)
    yield from ((source, *targets) for source, targets in groups.items())
    known = set(groups) | {target for targets in groups.values() for target in targets}
    by_tensor: dict[int, list[str]] = {}
    for name, holder in bare.holder.items():
        by_tensor.setdefault(id(bare.modules[holder]._parameters[name.rpartition(".")[2]]), []).append(name)
    yield from (tuple(names) for names in by_tensor.values() if len(names) > 1 and not known.intersection(names))


def _effective(name: str, bare: BareModel, inventory: Inventory) -> nn.Parameter | None:
    """The tensor that computes under this name now: a trained copy takes the place of its original."""
    holder, _, parameter = name.rpartition(".")
    module: nn.Module = inventory.modules[bare.live[bare.holder[name]]]
    if isinstance(module, ModulesToSaveWrapper):
        active = [adapter for adapter in module.active_adapters if adapter in module.modules_to_save]
        module = module.modules_to_save[active[0]] if active else module.original_module
        return module._parameters.get(parameter)
    return bare.modules[holder]._parameters.get(parameter)
