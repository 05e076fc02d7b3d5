"""Layers that still hold what torch put into them when they were made: no checkpoint has brought their weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from peft_inspect.structure.adapter_layers import is_real
from peft_inspect.structure.shards import is_part
from peft_inspect.structure.wrappers import class_of
from peft_inspect.walk import defined_in

if TYPE_CHECKING:
    from collections.abc import Mapping

_LAYERS = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
_ROUNDING = 1 + 2**-7  # half-precision weights are rounded to eight bits
_LEAST = 32  # elements, below which any weights could look like this


def untouched_layers(modules: Mapping[str, torch.nn.Module]) -> Iterator[str]:
    """Names of the layers beside the pretrained models in a module of the user's own that nothing was loaded into.

    Args:
        modules: of one base model by name, "" for the base model itself.
    """
    pretrained = [name for name, module in modules.items() if _is_of_library(module)]
    if not pretrained or "" in pretrained:
        return
    for name, module in modules.items():
        inside = any(name == outer or name.startswith(f"{outer}.") for outer in pretrained)
        if not inside and isinstance(module, _LAYERS) and _is_default(module.weight):
            yield name


def _is_of_library(module: torch.nn.Module) -> bool:
    return isinstance(module, PreTrainedModel) and defined_in(class_of(module)).startswith("transformers.")


def _is_default(weight: torch.Tensor) -> bool:
    """Whether the values are uniform within the bound that torch's layers start with. One step of training leaves it."""
    if not is_real(weight) or is_part(weight) or not weight.is_floating_point() or weight.numel() < _LEAST:
        return False
    bound = weight[0].numel() ** -0.5
    values = weight.detach().float()
    within = bool(values.abs().max() <= bound * _ROUNDING)
    return within and abs(float(values.square().mean()) * 3 / bound**2 - 1) < 3 * weight.numel() ** -0.5
