"""The feature helper is decorated with no_grad, above a decorator of the user's own that wraps it."""

import functools

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI303", "no-grad-region"
LAYERS = r"encoder\..*(up|down)"
DEAD = 4
VERIFIED = True


def counted(function):
    @functools.wraps(function)
    def counting(self, *args):
        self.calls += 1
        return function(self, *args)

    return counting


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)

    def forward(self, x):
        return self.down(self.up(x).relu())


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.calls = 0
        self.encoder = get_peft_model(Encoder(), LoraConfig(r=2, target_modules=["up", "down"]))
        self.head = nn.Linear(8, 3)

    @torch.no_grad()  # <- cause
    @counted
    def features(self, x):
        return self.encoder(x)

    def forward(self, x, label):
        return {"loss": nn.functional.cross_entropy(self.head(self.features(x)), label)}


class Trained(Model):
    @counted
    def features(self, x):
        return self.encoder(x)


batch = {"x": torch.randn(2, 8), "label": torch.tensor([2, 1])}


def broken():
    return Example(Model(), batch)


def fixed():
    return Example(Trained(), batch)
