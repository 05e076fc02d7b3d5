"""The dropout of the adapter was given as the share to keep: in training nothing ever goes into it."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI310", "zero-gradient"
LAYERS = r".*\.(0|2)"
DEAD = 0


def program(dropout):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    peft_model = get_peft_model(model, LoraConfig(r=2, target_modules=["0", "2"], lora_dropout=dropout)).train()
    return Example(peft_model, {"input": torch.randn(4, 6)}, lambda model, batch: model(batch["input"]).square().mean())


def broken():
    return program(dropout=1.0)


def fixed():
    return program(dropout=0.05)
