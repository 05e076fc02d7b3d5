"""A moving average of the adapted model lies beside it, frozen, and no step calls it: it is read by evaluations alone."""

import copy

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

FIXED_DEAD = 4  # those of the average


class WithAverage(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.average = copy.deepcopy(net).requires_grad_(False)

    def forward(self, noisy: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return (self.net(noisy) - noise).square().mean()


def healthy():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8))
    model = WithAverage(get_peft_model(net, LoraConfig(r=2, target_modules=["0", "2"])))
    return Example(model, {"noisy": torch.randn(4, 8), "noise": torch.randn(4, 8)})
