"""For speed, the bound `forward` of each projection is looked up once, in __init__."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI202", "base-layer-called-directly"
LAYERS = r".*(left|right)"
DEAD = 4


class Biaffine(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.left = nn.Linear(n, n)
        self.right = nn.Linear(n, n)
        self.mix = nn.Linear(n, n)
        self.project_left, self.project_right = self.left.forward, self.right.forward

    def forward(self, x):
        scores = self.project_left(x) @ self.project_right(x).T  # <- cause
        return {"loss": (scores @ self.mix(x)).square().mean()}


class LateBiaffine(Biaffine):
    def forward(self, x):
        return {"loss": (self.left(x) @ self.right(x).T @ self.mix(x)).square().mean()}


def build(cls):
    torch.manual_seed(0)
    return get_peft_model(cls(6), LoraConfig(r=2, target_modules=["left", "right", "mix"]))


def broken():
    return Example(build(Biaffine), {"x": torch.randn(3, 6)})


def fixed():
    return Example(build(LateBiaffine), {"x": torch.randn(3, 6)})
