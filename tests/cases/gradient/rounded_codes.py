"""Codes are rounded to integers: torch.round has a derivative, and it is zero everywhere."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI306", "non-differentiable-step"
LAYERS = r"codec\.base_model\.model\.(analysis|hidden)"
DEAD = 0


class Codec(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.analysis = nn.Linear(8, 4)
        self.synthesis = nn.Linear(4, 8)

    def quantise(self, code):
        return torch.round(code * 4) / 4  # <- cause

    def forward(self, x):
        return self.synthesis(self.quantise(self.analysis(self.hidden(x).tanh())))


class StraightThroughCodec(Codec):
    def quantise(self, code):
        return code + (torch.round(code * 4) / 4 - code).detach()


class Trainer(nn.Module):
    def __init__(self, codec):
        super().__init__()
        torch.manual_seed(0)
        self.codec = get_peft_model(codec(), LoraConfig(r=2, target_modules=["hidden", "analysis", "synthesis"]))

    def forward(self, x):
        return {"loss": nn.functional.mse_loss(self.codec(x), x)}


def broken():
    return Example(Trainer(Codec), {"x": torch.randn(4, 8)})


def fixed():
    return Example(Trainer(StraightThroughCodec), {"x": torch.randn(4, 8)})
