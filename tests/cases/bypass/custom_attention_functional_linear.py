"""An attention of one's own that multiplies by `self.out_proj.weight` instead of calling the module."""

import math

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*blocks\.\d+\.out_proj"
DEAD = 4
VERIFIED = True


class Attention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def context(self, x):
        scores = self.q_proj(x) @ self.k_proj(x).transpose(-1, -2) / math.sqrt(x.shape[-1])
        return scores.softmax(-1) @ self.v_proj(x)

    def forward(self, x):
        return x + F.linear(self.context(x), self.out_proj.weight, self.out_proj.bias)  # <- cause


class FixedAttention(Attention):
    def forward(self, x):
        return x + self.out_proj(self.context(x))


class Net(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.blocks = nn.Sequential(attention(12), attention(12))
        self.head = nn.Linear(12, 1)

    def forward(self, x, y):
        return {"loss": F.mse_loss(self.head(self.blocks(x)).squeeze(-1), y)}


def run(attention):
    torch.manual_seed(1)
    model = get_peft_model(Net(attention), LoraConfig(target_modules=["q_proj", "k_proj", "v_proj", "out_proj"]))
    return Example(model, {"x": torch.randn(2, 5, 12), "y": torch.randn(2, 5)})


def broken():
    return run(Attention)


def fixed():
    return run(FixedAttention)
