"""The adapter's weight is faded out layer by layer for an ablation and left at zero."""

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI311", "zero-scaling"
LAYERS = r".*\.2"
DEAD = 0


def fade(model, weight):
    last = [module for module in model.modules() if isinstance(module, LoraLayer)][-1]
    last.set_scale("default", weight)


def program(weight):
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), LoraConfig(r=2, target_modules=["0", "2"]))
    fade(model, weight)
    return Example(model, {"input": torch.randn(4, 6)}, lambda model, batch: model(batch["input"]).square().mean())


def broken():
    return program(0.0)


def fixed():
    return program(0.5)
