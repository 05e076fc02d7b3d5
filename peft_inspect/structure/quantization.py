"""Quantised weights: how they are stored, and how many weights a layer has that stores them packed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from peft_inspect.structure.plain import config_values
from peft_inspect.walk import defined_in

if TYPE_CHECKING:
    import torch

_STORED = {"Params4bit": "bnb 4-bit", "Int8Params": "bnb 8-bit"}


def storage_of(parameter: torch.Tensor) -> str | None:
    """How a quantised parameter is stored; None for an ordinary one."""
    kind = type(parameter)
    if kind.__name__ in _STORED:
        return " ".join(filter(None, (_STORED[kind.__name__], getattr(parameter, "quant_type", None))))
    return f"torchao {kind.__name__}" if defined_in(kind).startswith("torchao.") else None


def is_packed_linear(module: nn.Module) -> bool:
    """Whether a module does a linear layer's work on weights in a format of its own, as GPTQ, AWQ and HQQ layers do."""
    if module._modules or "linear" not in type(module).__name__.lower() or isinstance(module, nn.Linear):
        return False
    return all(isinstance(getattr(module, name, None), int) for name in ("in_features", "out_features"))


def weight_count(module: nn.Module) -> int:
    """Elements of a layer's own parameters, a packed weight counted by what it stands for."""
    held = sum(parameter.numel() for name, parameter in module._parameters.items() if parameter is not None and name != "weight")
    weight = module._parameters.get("weight")
    if is_packed_linear(module) or (weight is not None and storage_of(weight)):
        return int(getattr(module, "in_features", 0)) * int(getattr(module, "out_features", 0)) + held
    return held + (weight.numel() if weight is not None else 0)


class ConfiguredQuantization:
    """What a model's config says of weights that are not loaded: their format, and which layers keep theirs.

    A model built without weights has ordinary linear layers in the place of quantised ones, under the same names, so
    that structure and coverage need neither the quantisation's package nor a GPU.
    """

    def __init__(self, config: object) -> None:
        values: dict[str, Any] = config_values(getattr(config, "quantization_config", None))
        self.label = _label(values)
        self._kept = ("lm_head", *(values.get("modules_to_not_convert") or values.get("llm_int8_skip_modules") or ()))

    def of(self, path: str, module: nn.Module, parameter: torch.Tensor) -> str | None:
        """How the config has this parameter of a module at `path` stored."""
        if self.label is None or not isinstance(module, nn.Linear) or parameter.dim() != 2:
            return None
        return None if any(f".{name}." in f".{path}." for name in self._kept) else self.label


def _label(values: dict[str, Any]) -> str | None:
    if not values:
        return None
    bits = values.get("bits") or values.get("nbits")
    if values.get("load_in_4bit"):
        return f"bnb 4-bit {values.get('bnb_4bit_quant_type', '')}".strip()
    if values.get("load_in_8bit"):
        return "bnb 8-bit"
    method = str(values.get("quant_method") or values.get("quant_type") or "quantised")
    return f"{method} {bits}-bit" if bits else method
