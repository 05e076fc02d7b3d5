"""The tower was traced and frozen for speed: its adapters are constants of the graph that runs."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI204", "adapter-layer-not-called"
LAYERS = r"tower\..*\.(first|second)"
DEAD = 4


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x):
        return self.second(self.first(x).relu())


class Tagger(nn.Module):
    def __init__(self, frozen):
        super().__init__()
        self.tower, self.head = get_peft_model(Tower(), LoraConfig(r=2, target_modules=["first", "second"])), nn.Linear(6, 3)
        traced = torch.jit.trace(self.tower.eval(), torch.zeros(1, 6))
        self.graph = [torch.jit.freeze(traced)] if frozen else []

    def forward(self, x):
        run = self.graph[0] if self.graph else self.tower
        return self.head(run(x)).square().mean()  # <- cause


def program(frozen):
    torch.manual_seed(0)
    return Example(Tagger(frozen).train(), {"x": torch.randn(4, 6)})


def broken():
    return program(frozen=True)


def fixed():
    return program(frozen=False)
