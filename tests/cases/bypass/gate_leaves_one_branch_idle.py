"""A gate on the batch sends it through the fast or the deep branch; this batch never takes the deep one."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI208", "branch-not-executed"
LAYERS = r".*deep\.\d"
DEAD = 4


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(6, 8)
        self.fast = nn.Linear(8, 8)
        self.deep = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        hidden = self.stem(x)
        hidden = self.deep(hidden) if x.std() > 2 else self.fast(hidden)
        return {"loss": self.head(hidden).square().mean()}


def program(scale, targets):
    torch.manual_seed(1)
    return Example(get_peft_model(Gated(), LoraConfig(r=2, target_modules=targets)), {"x": scale * torch.randn(4, 6)})


def broken():
    return program(1.0, ["stem", "deep.0", "deep.2", "head"])


def fixed():
    return program(9.0, ["stem", "deep.0", "deep.2", "head"])
