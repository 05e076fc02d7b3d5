"""Sharded base weights while they are whole: FSDP gathers each into memory of its own before its unit runs, and reads go there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from peft_inspect.reversible import Reversible
from peft_inspect.structure.shards import is_part

if TYPE_CHECKING:
    from torch import Tensor, nn

    from peft_inspect.run.layers import AdapterLayers
    from peft_inspect.trace.operations import WeightReads


class Gathered(Reversible[None]):
    """Tells `reads` of every whole weight that takes the place of a sharded one. FSDP of the first generation gathers all into one."""

    def __init__(self, layers: AdapterLayers, reads: WeightReads) -> None:
        self._reads = reads
        self._held: list[tuple[nn.Module, str, frozenset[tuple[int, str]]]] = []
        for module in {id(module): module for module in layers.modules.values()}.values():
            owners = layers.bases.get(id(module), ())
            for name, parameter in module._parameters.items() if owners else ():
                if parameter is not None and parameter.dim() > 1 and is_part(parameter) and not hasattr(parameter, "ds_id"):
                    self._held.append((module, name, frozenset((owner, name) for owner in owners)))
        self._known: dict[int, Tensor] = {}
        self._handles: list[Any] = []

    def set_up(self) -> None:
        """Look at each call of a module: those inside a unit come after it was gathered."""
        if self._held:
            self._handles.append(register_module_forward_pre_hook(self._look))

    def put_back(self) -> None:
        """Look no longer."""
        for handle in self._handles:
            handle.remove()
        self._known.clear()

    def _look(self, _module: nn.Module, _args: Any) -> None:
        for holder, name, owners in self._held:
            tensor = holder._parameters.get(name)
            if isinstance(tensor, torch.Tensor) and id(tensor) not in self._known and not is_part(tensor):
                self._known[id(tensor)] = tensor
                self._reads.stands_for(tensor, owners)
