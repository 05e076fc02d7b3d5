"""A block-offloading autograd function passes the gradient of its input on and forgets the weights of the block."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI309", "no-gradient"
LAYERS = r".*layers\.\d\.(up|down)"
DEAD = 8


class Offloaded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, block):
        return block(hidden)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


class Backbone(nn.Module):
    def __init__(self, offload):
        super().__init__()
        self.layers = nn.ModuleList([Block(), Block()])
        self.offload = offload

    def forward(self, hidden):
        for block in self.layers:
            hidden = Offloaded.apply(hidden, block) if self.offload else block(hidden)  # <- cause
        return hidden


class Model(nn.Module):
    def __init__(self, offload):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(4, 8)
        self.backbone = get_peft_model(Backbone(offload), LoraConfig(r=2, target_modules=["up", "down"]))
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.backbone(self.stem(x))).square().mean()


def broken():
    return Example(Model(offload=True), {"x": torch.randn(3, 4)})


def fixed():
    return Example(Model(offload=False), {"x": torch.randn(3, 4)})
