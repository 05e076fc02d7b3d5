"""A hook was to keep pruned weights at zero; its mask is made of `lora_B` before training, which is all zeros."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI310", "zero-gradient"
LAYERS = r".*\.(0|2)"
DEAD = 0


def masked(mask):
    return lambda gradient: gradient * mask  # <- cause


def program(pruned):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    model = get_peft_model(model, LoraConfig(r=2, target_modules=["0", "2"]))
    for name, weight in model.named_parameters():
        if pruned and "lora_" in name:
            mask = torch.zeros_like(weight) if "lora_A" in name else (weight != 0).float()
            weight.register_hook(masked(mask))
    return Example(model, {"input": torch.randn(4, 6)}, lambda model, batch: model(batch["input"]).square().mean())


def broken():
    return program(pruned=True)


def fixed():
    return program(pruned=False)
