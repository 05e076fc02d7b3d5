"""An encoder without a loss that centres its embeddings: their plain sum never changes, though a real loss trains it."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI320", "no-loss"
LAYERS = None
DEAD = 0


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, features):
        embeddings = self.out(torch.tanh(self.hidden(features)))
        return embeddings - embeddings.mean(dim=-1, keepdim=True)


def program(loss):
    torch.manual_seed(0)
    model = get_peft_model(Centred(), LoraConfig(target_modules=["hidden", "out"]))
    return Example(model, {"features": torch.randn(2, 8)}, loss)


def broken():
    return program(None)


def fixed():
    return program(lambda model, batch: model(**batch).square().mean())
