"""Mixed precision by hand: the weight is cast to bfloat16 and multiplied, the module itself never called."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*\.up"
DEAD = 4
VERIFIED = True


class FeedForward(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.up = nn.Linear(d, 4 * d, bias=False)
        self.down = nn.Linear(4 * d, d, bias=False)

    def forward(self, x):
        hidden = (x.bfloat16() @ self.up.weight.to(torch.bfloat16).T).float()  # <- cause
        return x + self.down(hidden.relu())


class AutocastFeedForward(FeedForward):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.up(x)
        return x + self.down(hidden.float().relu())


def program(block):
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(block(8), block(8)), LoraConfig(r=2, target_modules=["up", "down"]))
    return Example(model, {"input": torch.randn(3, 8)}, lambda model, batch: model(batch["input"]).square().mean())


def broken():
    return program(FeedForward)


def fixed():
    return program(AutocastFeedForward)
