"""The network is called as a function of weights that were copied out of it when the wrapper was made."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI309", "no-gradient"
LAYERS = r".*\.(first|second)"
DEAD = 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.second(self.first(x).relu())


class Functional(nn.Module):
    def __init__(self, net, earlier):
        super().__init__()
        self.net, self.scale = net, nn.Parameter(torch.ones(()))
        self.weights = {name: weight.detach().clone() for name, weight in net.named_parameters()} if earlier else None

    def forward(self, x):
        weights = self.weights or dict(self.net.named_parameters())
        return (torch.func.functional_call(self.net, weights, (x,)) * self.scale).square().mean()  # <- cause


def program(earlier):
    torch.manual_seed(0)
    net = get_peft_model(Net(), LoraConfig(r=2, target_modules=["first", "second"]))
    return Example(Functional(net, earlier), {"x": torch.randn(4, 6)})


def broken():
    return program(earlier=True)


def fixed():
    return program(earlier=False)
