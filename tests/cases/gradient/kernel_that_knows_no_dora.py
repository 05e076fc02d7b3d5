"""A fused projection replaces PEFT's forward and computes plain LoRA: the magnitudes of DoRA are no part of it."""

import types

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI319", "partly-dead-layer"
LAYERS = r".*\.(0|2)"
DEAD = 2


def fused(layer, x):
    update = x @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
    return nn.functional.linear(x, layer.base_layer.weight, layer.base_layer.bias) + layer.scaling["default"] * update  # <- cause


def program(patched):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    model = get_peft_model(model, LoraConfig(r=2, target_modules=["0", "2"], use_dora=True))
    for layer in (model.base_model.model[0], model.base_model.model[2]) if patched else ():
        layer.forward = types.MethodType(fused, layer)
    return Example(model, {"input": torch.randn(4, 6)}, lambda model, batch: model(batch["input"]).square().mean())


def broken():
    return program(patched=True)


def fixed():
    return program(patched=False)
