"""A cross-attention gate that starts at zero was frozen with the base: nothing before it ever trains.

The attention subtracts a detached maximum to keep its softmax stable, which is no fault.
"""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI310", "zero-gradient"
LAYERS = r"attention\..*(queries|keys|values)"
DEAD = 0


class CrossAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.queries, self.keys, self.values = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, text, image):
        scores = self.queries(text) @ self.keys(image).transpose(1, 2)
        scores = scores - scores.amax(dim=-1, keepdim=True).detach()
        return scores.softmax(dim=-1) @ self.values(image)


class Flamingo(nn.Module):
    def __init__(self, gate):
        super().__init__()
        torch.manual_seed(0)
        self.attention = get_peft_model(CrossAttention(), LoraConfig(r=2, target_modules=["queries", "keys", "values"]))
        self.gate = nn.Parameter(torch.zeros(()), requires_grad=gate)
        self.out = nn.Linear(8, 8)

    def forward(self, text, image, target):
        return {"loss": nn.functional.mse_loss(self.out(text + self.gate.tanh() * self.attention(text, image)), target)}


def train(gate):
    return Example(Flamingo(gate), {name: torch.randn(2, 3, 8) for name in ("text", "image", "target")})


def broken():
    return train(gate=False)


def fixed():
    return train(gate=True)
