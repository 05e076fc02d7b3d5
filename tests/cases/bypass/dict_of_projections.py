"""A dictionary of projections, made in __init__ before the wrapping, still holds the plain Linears."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI202", "base-layer-called-directly"
LAYERS = r".*layers\.\d\.(q|k)_proj"
DEAD = 8
VERIFIED = True


class Layer(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.q_proj = nn.Linear(d, d)
        self.k_proj = nn.Linear(d, d)
        self.o_proj = nn.Linear(d, d)
        self._table = {"q": self.q_proj, "k": self.k_proj}

    def project(self, name, x):
        return self._table[name](x)  # <- cause

    def forward(self, x):
        q, k = (self.project(name, x) for name in ("q", "k"))
        return x + self.o_proj((q @ k.mT).softmax(-1) @ x)


class LateLayer(Layer):
    def project(self, name, x):
        return getattr(self, f"{name}_proj")(x)


class Encoder(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layers = nn.ModuleList([layer(10), layer(10)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def program(layer):
    torch.manual_seed(3)
    peft_model = get_peft_model(Encoder(layer), LoraConfig(target_modules=["q_proj", "k_proj", "o_proj"], r=2))
    return Example(peft_model, {"x": torch.randn(1, 4, 10)}, lambda model, batch: model(batch["x"]).pow(2).mean())


def broken():
    return program(Layer)


def fixed():
    return program(LateLayer)
