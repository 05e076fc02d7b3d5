"""Scores of every example by `torch.vmap`, which reads the readout's weight; inside, tensors are wrappers without a storage."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*\.readout"
DEAD = 2
VERIFIED = True


class Scorer(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.up = nn.Linear(d, d)
        self.readout = nn.Linear(d, 3, bias=False)

    def forward(self, x):
        hidden = self.up(x)
        return torch.vmap(self.score)(hidden)

    def score(self, row):
        return torch.mv(self.readout.weight, row)  # <- cause


class CallingScorer(Scorer):
    def score(self, row):
        return self.readout(row)


def program(scorer):
    torch.manual_seed(0)
    model = get_peft_model(scorer(8), LoraConfig(r=2, target_modules=["up", "readout"]))
    return Example(model, {"x": torch.randn(4, 8)}, lambda model, batch: model(batch["x"]).square().mean())


def broken():
    return program(Scorer)


def fixed():
    return program(CallingScorer)
