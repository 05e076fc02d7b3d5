"""A compiled block multiplies by the raw weight of one of its layers."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*\.down"
DEAD = 2
VERIFIED = True


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 12)
        self.down = nn.Linear(12, 6)

    def forward(self, x):
        return x + self.up(x).relu() @ self.down.weight.T  # <- cause


class PlainBlock(Block):
    def forward(self, x):
        return x + self.down(self.up(x).relu())


class Net(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block()
        self.run = torch.compile(self.block, backend="eager")

    def forward(self, x):
        return self.run(x).square().mean()


def build(block):
    torch.manual_seed(0)
    return Example(get_peft_model(Net(block), LoraConfig(r=2, target_modules=["up", "down"])), {"x": torch.randn(2, 6)})


def broken():
    return build(Block)


def fixed():
    return build(PlainBlock)
