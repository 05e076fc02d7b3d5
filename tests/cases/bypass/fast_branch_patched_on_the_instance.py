"""A kernel package replaces the forward of each MLP; for long inputs the new one multiplies by the raw weight."""

import types

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI209", "weight-read-in-source"
LAYERS = r".*down"
DEAD = 0


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 6)
        self.down = nn.Linear(6, 6)

    def forward(self, x):
        return self.down(self.up(x).relu())


def fast_forward(mlp, x):
    hidden = mlp.up(x).relu()
    if x.shape[0] > 1024:
        return hidden @ mlp.down.weight.T  # <- cause
    return mlp.down(hidden)


def build(*, patched):
    torch.manual_seed(0)
    base = nn.Sequential(MLP(), MLP())
    for mlp in base if patched else ():
        mlp.forward = types.MethodType(fast_forward, mlp)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["up", "down"]))
    return Example(model, {"input": torch.randn(2, 6)}, lambda model, batch: model(batch["input"]).square().mean())


def broken():
    return build(patched=True)


def fixed():
    return build(patched=False)
