"""A loop that lets the two matrices of each layer train, and freezes the magnitude of DoRA with the rest."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI319", "partly-dead-layer"
LAYERS = r".*\.[02]"
DEAD = 2


def program(every_factor):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["0", "2"], use_dora=True))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_A" in name or "lora_B" in name or (every_factor and "lora_" in name)
    return Example(model, {"input": torch.randn(4, 6)}, lambda model, batch: model(batch["input"]).square().mean())


def broken():
    return program(every_factor=False)


def fixed():
    return program(every_factor=True)
