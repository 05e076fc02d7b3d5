"""An encoder pools its states with attention, and the model around takes the states: the head is read, run and dropped.

`nn.MultiheadAttention` reads `out_proj.weight` itself, but calling it would train nothing either.
"""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI308", "output-unused"
LAYERS = r".*\.head\.(attention\.out_proj|fc)"
DEAD = 4


class PoolingHead(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.probe = nn.Parameter(torch.randn(1, 1, d))
        self.attention = nn.MultiheadAttention(d, 2, batch_first=True)
        self.fc = nn.Linear(d, d)

    def forward(self, states):
        probe = self.probe.expand(len(states), -1, -1)
        return self.fc(self.attention(probe, states, states)[0][:, 0])


class Encoder(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.layer = nn.Linear(d, d)
        self.head = PoolingHead(d)

    def forward(self, x):
        states = self.layer(x)
        return states, self.head(states)


class Classifier(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.encoder = Encoder(d)

    def forward(self, x):
        states, _ = self.encoder(x)
        return states.mean(1).square().mean()


def program(targets):
    torch.manual_seed(0)
    model = get_peft_model(Classifier(8), LoraConfig(r=2, target_modules=targets))
    return Example(model, {"x": torch.randn(3, 5, 8)})


def broken():
    return program(["layer", "out_proj", "fc"])


def fixed():
    return program(["layer"])
