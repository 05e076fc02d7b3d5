"""A helper that "sees through" quantisation wrappers also sees through the LoRA layers."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI202", "base-layer-called-directly"
LAYERS = r".*experts\.\d\.down"
DEAD = 4
VERIFIED = True


def unwrap(module):
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def same(module):
    return module


class Expert(nn.Module):
    def __init__(self, dim, hidden, resolve):
        super().__init__()
        self.up = nn.Linear(dim, hidden, bias=False)
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)
        self.resolve = resolve

    def forward(self, x):
        hidden = nn.functional.silu(self.gate(x)) * self.up(x)
        down = self.resolve(self.down)
        return down(hidden)  # <- cause


class MoE(nn.Module):
    def __init__(self, resolve):
        super().__init__()
        self.experts = nn.ModuleList(Expert(8, 16, resolve) for _ in range(2))
        self.router = nn.Linear(8, 2)

    def forward(self, x):
        weights = self.router(x).softmax(-1)
        mixed = sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))
        return {"loss": (mixed - x).square().mean()}


def build(resolve):
    torch.manual_seed(0)
    return get_peft_model(MoE(resolve), LoraConfig(r=2, target_modules=["up", "gate", "down"]))


def broken():
    return Example(build(unwrap), {"x": torch.randn(3, 8)})


def fixed():
    return Example(build(same), {"x": torch.randn(3, 8)})
