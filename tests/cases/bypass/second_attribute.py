"""One Linear under two attribute names: PEFT swaps the first, the forward uses the second."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI202", "base-layer-called-directly"
LAYERS = r".*\.decoder\.proj"
DEAD = 2
VERIFIED = True


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(6, 6)
        self.proj = nn.Linear(6, 4)


class OldApi(nn.Module):
    """`output_layer` is what checkpoints from before the refactoring called it."""

    def __init__(self):
        super().__init__()
        self.decoder = Decoder()
        self.output_layer = self.decoder.proj

    def forward(self, x, y):
        logits = self.output_layer(self.decoder.inp(x).tanh())  # <- cause
        return {"loss": nn.functional.cross_entropy(logits, y), "logits": logits}


class NewApi(OldApi):
    def forward(self, x, y):
        logits = self.decoder.proj(self.decoder.inp(x).tanh())
        return {"loss": nn.functional.cross_entropy(logits, y), "logits": logits}


def train(model_class):
    torch.manual_seed(0)
    model = get_peft_model(model_class(), LoraConfig(r=2, target_modules=["inp", "proj"]))
    return Example(model, {"x": torch.randn(5, 6), "y": torch.randint(4, (5,))})


def broken():
    return train(OldApi)


def fixed():
    return train(NewApi)
