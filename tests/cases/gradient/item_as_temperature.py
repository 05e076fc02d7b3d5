"""A predicted temperature is turned into a Python number with .item() before it is used."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r".*temperature"
DEAD = 2


class Calibrated(nn.Module):
    def __init__(self, as_number):
        super().__init__()
        self.temperature = nn.Linear(6, 1)
        self.classifier = nn.Linear(6, 3)
        self.as_number = as_number

    def forward(self, x, y):
        temperature = self.temperature(x.mean(0)).exp()
        if self.as_number:
            temperature = temperature.item()  # <- cause
        return {"loss": nn.functional.cross_entropy(self.classifier(x) / temperature, y)}


def program(as_number):
    torch.manual_seed(0)
    model = get_peft_model(Calibrated(as_number), LoraConfig(r=2, target_modules=["temperature", "classifier"]))
    return Example(model, {"x": torch.randn(4, 6), "y": torch.tensor([0, 1, 2, 0])})


def broken():
    return program(as_number=True)


def fixed():
    return program(as_number=False)
