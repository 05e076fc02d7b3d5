"""Which adapter weights a gradient reaches in this process, before a runtime adds up, shards or takes away what arrived.

Reducers average over the processes, and FSDP and ZeRO leave each of them a part: neither shows where a gradient came from.
"""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import register_module_forward_hook

from peft_inspect.reversible import Reversible
from peft_inspect.structure.shards import is_part, local

if TYPE_CHECKING:
    from torch import Tensor, nn

    from peft_inspect.records import GradientState, Structure
    from peft_inspect.run.layers import AdapterLayers


class Arrivals(Reversible[None]):
    """Hooks on the tensors that stand for the adapter weights while the model runs. They change nothing."""

    def __init__(self, layers: AdapterLayers, structure: Structure) -> None:
        self._held: dict[int, list[tuple[str, nn.Module, str]]] = {}  # of a module: what to look for once it has run
        self._whole: list[tuple[str, Tensor]] = []
        self._watched: set[str] = set()
        self._known: set[int] = set()
        self._handles: list[Any] = []
        self._arrived: dict[str, list[Tensor]] = {}  # the largest magnitudes, where they are gone later
        self._takes = "deepspeed" in sys.modules  # what arrives is gone by the end of the backward
        for layer in structure.adapter_layers:
            for path in layer.parameters:
                self._look_for(path, layers.modules[layer.path], layers)

    def _look_for(self, path: str, layer: nn.Module, layers: AdapterLayers) -> None:
        parameter = layers.parameters[path]
        holder, _, name = path.rpartition(".")
        registered = layers.modules[holder]
        if not is_part(parameter) and id(parameter) not in layers.parts:
            self._whole.append((path, parameter))
            return
        for module in {id(registered): registered, id(layer): layer}.values():
            self._held.setdefault(id(module), []).append((path, registered, name))

    def set_up(self) -> None:
        """Note what arrives from now on."""
        for path, parameter in self._whole:
            self._watch(path, parameter)
        if self._held:
            self._handles.append(register_module_forward_hook(self._left))

    def put_back(self) -> None:
        """Take all hooks off."""
        while self._handles:
            self._handles[-1].remove()
            self._handles.pop()

    def state(self, path: str) -> GradientState | None:
        """What has arrived at a weight here: `none` for nothing; None where nobody could look."""
        if path not in self._watched:
            return None
        if path not in self._arrived:
            return "none"
        largest = max(map(float, self._arrived[path]), default=1.0)
        return "nonfinite" if not math.isfinite(largest) else "ok" if largest else "zero"

    @property
    def takes(self) -> bool:
        """Whether a runtime takes gradients away as they arrive, so that what is found on the weights afterwards says nothing."""
        return self._takes

    def _left(self, module: nn.Module, _args: Any, _output: Any) -> None:
        for path, holder, name in self._held.get(id(module), ()):
            tensor = getattr(holder, name, None)
            if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
                self._watch(path, tensor)

    def _watch(self, path: str, tensor: Tensor) -> None:
        if not tensor.requires_grad or id(tensor) in self._known:
            return
        self._watched.add(path)
        if tensor.is_leaf:
            self._known.add(id(tensor))
        self._handles.append(tensor.register_hook(partial(self._note, path)))  # type: ignore[no-untyped-call]

    def _note(self, path: str, gradient: Tensor) -> None:
        seen = self._arrived.setdefault(path, [])
        if self._takes:
            part = local(gradient)
            if part.numel():
                seen.append(part.abs().max())
