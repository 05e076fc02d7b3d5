"""A compiled kernel reads and writes memory by address: its output is a fresh tensor, and the loss depends on it all the same."""

import ctypes

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI309", "no-gradient"
LAYERS = r".*\.(first|second)"
DEAD = 4


def memory(tensor):
    return np.ctypeslib.as_array(ctypes.cast(tensor.data_ptr(), ctypes.POINTER(ctypes.c_float)), shape=tuple(tensor.shape))  # <- cause


class Kernel(nn.Module):
    def __init__(self, compiled):
        super().__init__()
        self.weight, self.compiled = nn.Parameter(torch.randn(6, 6), requires_grad=False), compiled

    def forward(self, x):
        if not self.compiled:
            return x @ self.weight
        output = torch.empty(x.shape[0], 6)
        np.matmul(memory(x.contiguous()), memory(self.weight), out=memory(output))
        return output


class Network(nn.Module):
    def __init__(self, compiled):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.kernels = nn.ModuleList(Kernel(compiled) for _ in range(2))

    def forward(self, x):
        return self.head(self.kernels[1](self.second(self.kernels[0](self.first(x)))))


def program(compiled):
    torch.manual_seed(0)
    model = get_peft_model(Network(compiled), LoraConfig(r=2, target_modules=["first", "second"], modules_to_save=["head"]))
    return Example(model, {"x": torch.randn(4, 6)}, lambda model, batch: model(batch["x"]).square().mean())


def broken():
    return program(compiled=True)


def fixed():
    return program(compiled=False)
