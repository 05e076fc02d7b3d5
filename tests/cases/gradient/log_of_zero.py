"""A log of a probability that is exactly zero makes the gradients NaN."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI315", "non-finite-gradient"
LAYERS = None
DEAD = 0


class Entropy(nn.Module):
    def __init__(self, eps):
        super().__init__()
        self.eps = eps

    def forward(self, probabilities):
        return -(probabilities * (probabilities + self.eps).log()).sum(-1).mean()  # <- cause


class Net(nn.Module):
    def __init__(self, eps):
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.entropy = Entropy(eps)

    def forward(self, x):
        probabilities = self.body(x).relu()
        return {"loss": self.entropy(probabilities)}


def program(eps):
    torch.manual_seed(0)
    return Example(get_peft_model(Net(eps), LoraConfig(r=2, target_modules=["body"])), {"x": torch.randn(4, 4)})


def broken():
    return program(0.0)


def fixed():
    return program(1e-6)
