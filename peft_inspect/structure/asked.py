"""What was asked for against what was built, for every base model that PEFT was given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peft.tuners.tuners_utils import BaseTunerLayer

from peft_inspect.records import AdapterInfo, AdapterLayerInfo, Coverage, ParameterInfo, Tie, Tower
from peft_inspect.structure.bare import bare_model
from peft_inspect.structure.coverage import coverage_of
from peft_inspect.structure.fresh import fresh_paths
from peft_inspect.structure.owners import adapter_infos
from peft_inspect.structure.targets import TargetTable
from peft_inspect.structure.ties import ties_of

if TYPE_CHECKING:
    from peft_inspect.structure.inventory import Inventory
    from peft_inspect.structure.owners import Owner


class AskedAndBuilt:
    """Brings configs, names and adapter layers together.

    Args:
        inventory: the live model.
        owners: who holds PEFT configs; for a model without any, one without configs.
        towers: of the live model.
    """

    def __init__(self, inventory: Inventory, owners: tuple[Owner, ...], towers: tuple[Tower, ...]) -> None:
        self.inventory, self.owners, self.towers = inventory, owners, towers
        self.bare = {owner.base_path: bare_model(owner.base_path, inventory) for owner in owners}
        self._tables: dict[tuple[str, str], TargetTable] = {}

    def layers(self, rows: tuple[AdapterLayerInfo, ...], requested: Mapping[str, Any] | None) -> tuple[AdapterLayerInfo, ...]:
        """The rows with the names that configs know them by, and whether a config asks for them."""
        names = {path: name for bare in self.bare.values() for path, name in bare.name_of.items()}
        rows = tuple(replace(row, name=names.get(row.path, row.path)) for row in rows)
        infos = tuple(adapter_infos(self.owners, rows))
        for info in infos:
            of_adapter = self._of(info, rows)
            table = TargetTable(self.bare[info.base], of_adapter, self.towers, info.config, requested if len(infos) == 1 else None)
            self._tables[info.owner, info.name] = table
        return tuple(replace(row, asked=self._is_asked(row, infos)) for row in rows)

    def adapters(self, layers: tuple[AdapterLayerInfo, ...], parameters: Iterable[ParameterInfo]) -> tuple[AdapterInfo, ...]:
        """What each config asked for, with its target table and what it came to."""
        weights = [parameter for parameter in parameters if parameter.role in ("adapter", "saved")]
        return tuple(self._with_table(info, weights) for info in adapter_infos(self.owners, layers))

    def coverage(self, layers: tuple[AdapterLayerInfo, ...], routers: frozenset[str]) -> tuple[Coverage, ...]:
        """Which layers carry an adapter and which do not, in all base models."""
        return tuple(row for bare in self.bare.values() for row in coverage_of(bare, layers, self.towers, routers))

    def ties(self, layers: tuple[AdapterLayerInfo, ...]) -> tuple[Tie, ...]:
        """Weights that the base models tie."""
        return tuple(tie for bare in self.bare.values() for tie in ties_of(bare, layers, self.inventory))

    def fresh(self) -> frozenset[str]:
        """Paths of the modules that no checkpoint of the base models brings."""
        return frozenset(path for bare in self.bare.values() for path in fresh_paths(bare))

    def _with_table(self, info: AdapterInfo, weights: list[ParameterInfo]) -> AdapterInfo:
        table = self._tables[info.owner, info.name]
        below = f"{info.owner}." if info.owner else ""
        own = [weight for weight in weights if weight.adapter == info.name and weight.path.startswith(below)]
        return replace(
            info,
            targets=table.targets(),
            converted=table.converted,
            all_linear=table.all_linear,
            parameters=sum(weight.numel for weight in own),
            trainable=sum(weight.numel for weight in own if weight.requires_grad),
        )

    def _of(self, info: AdapterInfo, rows: tuple[AdapterLayerInfo, ...]) -> list[AdapterLayerInfo]:
        return [row for row in rows if row.adapter == info.name and row.path in self.bare[info.base].name_of]

    def _is_asked(self, row: AdapterLayerInfo, infos: tuple[AdapterInfo, ...]) -> bool:
        """Tuners other than the config's own (trainable tokens) come from other fields than the targets, prompts from the whole config."""
        if not isinstance(self.inventory.modules[row.path], BaseTunerLayer):
            return True
        configs = [info for info in infos if info.name == row.adapter and row.path in self.bare[info.base].name_of]
        return any(info.type != row.tuner or self._ties(info, row) or self._tables[info.owner, info.name].asks_for(row) for info in configs)

    def _ties(self, info: AdapterInfo, row: AdapterLayerInfo) -> bool:
        """Whether PEFT built this layer to keep it tied to one that was asked for."""
        owner = next(owner for owner in self.owners if owner.path == info.owner and info.name in owner.configs)
        return row.name.rpartition(".")[2] in {
            name.rpartition(".")[2] for name in getattr(owner.configs[info.name], "target_modules_to_tie", None) or ()
        }
