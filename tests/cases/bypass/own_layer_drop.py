"""LayerDrop of the user's own model, set to the share of blocks that was to be kept."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI208", "branch-not-executed"
LAYERS = r".*\.blocks\.\d\.mix"
DEAD = 6


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(6, 6)

    def forward(self, x):
        return x + self.mix(x).tanh()


class Stack(nn.Module):
    def __init__(self, layer_drop):
        super().__init__()
        self.layer_drop = layer_drop
        self.blocks, self.head = nn.ModuleList([Block() for _ in range(3)]), nn.Linear(6, 2)

    def forward(self, x):
        for block in self.blocks:
            if not self.training or torch.rand(()) >= self.layer_drop:
                x = block(x)
        return self.head(x).square().mean()


def program(layer_drop):
    torch.manual_seed(0)
    model = get_peft_model(Stack(layer_drop), LoraConfig(r=2, target_modules=["mix"], modules_to_save=["head"]))
    return Example(model.train(), {"x": torch.randn(3, 6)})


def broken():
    return program(1.0)


def fixed():
    return program(0.0)
