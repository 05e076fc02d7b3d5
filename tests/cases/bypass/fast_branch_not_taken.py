"""Long sequences would take a branch that reads the raw weight; this batch is short."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI209", "weight-read-in-source"
LAYERS = r".*\.w_in"
DEAD = 0


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.w_in = nn.Linear(6, 12)
        self.w_out = nn.Linear(12, 6)

    def forward(self, x):
        hidden = self.chunked(x) if x.shape[1] > 512 else self.w_in(x)
        return {"loss": (self.w_out(hidden.relu()) - x).square().mean()}

    def chunked(self, x):
        return torch.cat([chunk @ self.w_in.weight.T + self.w_in.bias for chunk in x.split(512, dim=1)], dim=1)  # <- cause


class PlainBlock(Block):
    chunked = None

    def forward(self, x):
        return {"loss": (self.w_out(self.w_in(x).relu()) - x).square().mean()}


def program(block):
    torch.manual_seed(0)
    return Example(get_peft_model(block(), LoraConfig(r=2, target_modules=["w_in", "w_out"])), {"x": torch.randn(2, 4, 6)})


def broken():
    return program(Block)


def fixed():
    return program(PlainBlock)
