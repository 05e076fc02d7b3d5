"""A fused step keeps the weights themselves in a list, taken in __init__."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*(gate|value)"
DEAD = 4


class GatedRecurrence(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.gate = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        self.out = nn.Linear(size, size)
        self._flat_weights = [self.gate.weight, self.gate.bias, self.value.weight, self.value.bias]

    def step(self, state, x):
        gate_w, gate_b, value_w, value_b = self._flat_weights
        gate = torch.sigmoid(torch.addmm(gate_b, x, gate_w.t()))  # <- cause
        value = torch.tanh(torch.addmm(value_b, x, value_w.t()))
        return state * (1 - gate) + gate * value

    def forward(self, sequence):
        state = torch.zeros_like(sequence[0])
        for x in sequence:
            state = self.step(state, x)
        return self.out(state).square().mean()


class ModularRecurrence(GatedRecurrence):
    def step(self, state, x):
        gate = torch.sigmoid(self.gate(x))
        return state * (1 - gate) + gate * torch.tanh(self.value(x))


def run(cell):
    torch.manual_seed(0)
    return Example(get_peft_model(cell(6), LoraConfig(r=2, target_modules=["gate", "value", "out"])), {"sequence": torch.randn(3, 2, 6)})


def broken():
    return run(GatedRecurrence)


def fixed():
    return run(ModularRecurrence)
