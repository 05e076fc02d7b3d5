"""The forecast is drawn from the predicted distribution, and the draw is compared with what came."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI306", "non-differentiable-step"
LAYERS = r".*\.(encode|head)"
DEAD = 4


class Forecaster(nn.Module):
    def __init__(self, drawn):
        super().__init__()
        self.encode, self.head, self.level = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(6, 2)
        self.drawn = drawn

    def forward(self, past, future):
        mean, spread = self.head(self.encode(past).tanh()).chunk(2, -1)
        predicted = torch.distributions.Normal(mean, nn.functional.softplus(spread) + 0.1)
        change = predicted.sample() if self.drawn else predicted.rsample()  # <- cause
        return (self.level(past) + change - future).square().mean()


def program(drawn):
    torch.manual_seed(0)
    model = get_peft_model(Forecaster(drawn), LoraConfig(r=2, target_modules=["encode", "head"], modules_to_save=["level"]))
    return Example(model, {"past": torch.randn(3, 6), "future": torch.randn(3, 2)})


def broken():
    return program(drawn=True)


def fixed():
    return program(drawn=False)
