"""A head with one output is trained by cross entropy: a softmax over one class is 1, whatever goes in."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI310", "zero-gradient"
LAYERS = r".*\.0"
DEAD = 0


def loss(model, batch):
    logits = model(batch["input"])
    return -torch.log_softmax(logits, dim=-1)[:, 0].mean()  # <- cause


def program(classes):
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, classes)), LoraConfig(r=2, target_modules=["0"]))
    return Example(model, {"input": torch.randn(4, 6)}, loss)


def broken():
    return program(classes=1)


def fixed():
    return program(classes=2)
