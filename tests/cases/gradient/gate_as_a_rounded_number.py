"""A mixing weight is rounded as a Python number, to be shown on a dashboard, and the rounded number is what mixes."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r".*gate"
DEAD = 2


class Mixture(nn.Module):
    def __init__(self, rounded):
        super().__init__()
        torch.manual_seed(0)
        self.gate = nn.Linear(8, 1)
        self.left = nn.Linear(8, 3)
        self.right = nn.Linear(8, 3)
        self.rounded = rounded

    def forward(self, x, labels):
        weight = self.gate(x).mean().sigmoid()
        if self.rounded:
            weight = round(float(weight), 3)  # <- cause
        return {"loss": F.cross_entropy(self.left(x) * weight + self.right(x) * (1 - weight), labels)}


def program(rounded):
    lora = LoraConfig(r=2, target_modules=["gate", "left"], modules_to_save=["right"])
    return Example(get_peft_model(Mixture(rounded), lora), {"x": torch.randn(3, 8), "labels": torch.tensor([0, 1, 2])})


def broken():
    return program(True)


def fixed():
    return program(False)
