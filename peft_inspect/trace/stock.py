"""LoRA layers that are exactly PEFT's around torch's own `nn.Linear`: what they do with their weights is known beforehand.

They are most of the operations of a usual model. Where nothing else can run inside one of them, the operations in it are not watched.
"""

from __future__ import annotations

from typing import Any

from peft.tuners.lora.layer import Linear
from torch import nn

from peft_inspect.internals import find
from peft_inspect.structure.source.lines import is_machinery, is_peft

_PARTS = ("lora_A", "lora_B", "lora_dropout")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_GLOBAL_HOOKS = (find("global_forward_hooks"), find("global_forward_pre_hooks"))
_OWN_HOOKS = 1  # of each kind, for all modules: those that watch the calls


class StockLayers:
    """Which layers are stock; looked at once each, while a run is watched."""

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}
        self._classes: dict[type, bool] = {}

    def holds(self, layer: Any) -> bool:
        """Whether all that runs inside this layer is code of PEFT and torch that writes into no weight."""
        if any(hooks is None or len(hooks) > _OWN_HOOKS for hooks in _GLOBAL_HOOKS):
            return False
        if id(layer) not in self._known:
            self._known[id(layer)] = type(layer) is Linear and not layer.lora_variant and self._is_plain(layer)
        return self._known[id(layer)] and not layer.merged and not layer.disable_adapters

    def _is_plain(self, layer: Any) -> bool:
        held = [layer.base_layer, *(part for name in _PARTS for part in layer._modules[name]._modules.values())]
        return all(type(part) in (nn.Linear, nn.Dropout, nn.Identity) for part in held) and all(
            self._is_untouched(type(module))
            and "forward" not in vars(module)
            and not any(vars(module)[name] for name in _HOOKS)
            and all(parameter is None or type(parameter) is nn.Parameter for parameter in module._parameters.values())
            for module in (layer, *held)
        )

    def _is_untouched(self, kind: Any) -> bool:
        """Whether the class still has the forward that its library gave it."""
        if kind not in self._classes:
            code = getattr(kind.forward, "__code__", None)
            self._classes[kind] = code is not None and (is_machinery(code) or is_peft(code))
        return self._classes[kind]


def adapters_of(layer: Any) -> tuple[str, ...]:
    """The adapters that a stock layer holds."""
    return tuple(layer.lora_A)
