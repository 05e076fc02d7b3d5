"""Prefix tokens go through the module, the long rest through a chunked matmul with its weight: half a LoRA."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*\.to_v"
DEAD = 0


class ChunkedMixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_v = nn.Linear(8, 8, bias=False)
        self.to_out = nn.Linear(8, 8, bias=False)

    def values(self, x):
        prefix, rest = x[:, :2], x[:, 2:]
        chunks = [chunk @ self.to_v.weight.T for chunk in rest.split(2, dim=1)]  # <- cause
        return torch.cat([self.to_v(prefix), *chunks], dim=1)

    def forward(self, x):
        return self.to_out(self.values(x).cumsum(1))


class Mixer(ChunkedMixer):
    def values(self, x):
        return self.to_v(x)


def program(mixer):
    torch.manual_seed(0)
    model = get_peft_model(mixer(), LoraConfig(r=2, target_modules=["to_v", "to_out"]))
    return Example(model, {"x": torch.randn(2, 6, 8)}, lambda model, batch: (model(batch["x"]) - 1).square().mean())


def broken():
    return program(ChunkedMixer)


def fixed():
    return program(Mixer)
