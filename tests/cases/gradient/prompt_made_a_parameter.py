"""The output of a prompt encoder is made an nn.Parameter, so that an optimizer takes it: a new leaf, and the encoder is cut off."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r".*prompts\..*"
DEAD = 4


class Prompted(nn.Module):
    def __init__(self, as_parameter):
        super().__init__()
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
        self.prompts = get_peft_model(encoder, LoraConfig(r=2, target_modules=["0", "2"]))
        self.body = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 2)
        self.register_buffer("seeds", torch.randn(3, 8))
        self.as_parameter = as_parameter

    def forward(self, x, labels):
        prompt = self.prompts(self.seeds)
        if self.as_parameter:
            prompt = nn.Parameter(prompt)  # <- cause
        hidden, _ = self.body(torch.cat([prompt.expand(len(x), -1, -1), x], dim=1))
        return {"loss": F.cross_entropy(self.head(hidden[:, -1]), labels)}


def program(as_parameter):
    return Example(Prompted(as_parameter), {"x": torch.randn(2, 4, 8), "labels": torch.tensor([0, 1])})


def broken():
    return program(True)


def fixed():
    return program(False)
