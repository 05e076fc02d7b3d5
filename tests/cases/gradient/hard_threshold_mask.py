"""A learned gate is thresholded: the comparison returns booleans, and no gradient reaches the gate."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI306", "non-differentiable-step"
LAYERS = r".*gate"
DEAD = 2


class GatedMLP(nn.Module):
    def __init__(self, hard):
        super().__init__()
        self.gate = nn.Linear(6, 6)
        self.body = nn.Linear(6, 6)
        self.hard = hard

    def forward(self, x, y):
        gate = torch.sigmoid(self.gate(x))
        if self.hard:
            gate = (gate > 0.5).float()  # <- cause
        return {"loss": nn.functional.mse_loss(self.body(x) * gate, y)}


def train(hard):
    torch.manual_seed(0)
    model = get_peft_model(GatedMLP(hard), LoraConfig(r=2, target_modules=["gate", "body"]))
    return Example(model, {"x": torch.randn(5, 6), "y": torch.randn(5, 6)})


def broken():
    return train(hard=True)


def fixed():
    return train(hard=False)
