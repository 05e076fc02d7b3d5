"""The encoder was traced for speed before the wrapping; the graph keeps reading the weights that it saw."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*encoder\.(0|2)"
DEAD = 4


class Ranker(nn.Module):
    def __init__(self, traced):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
        self.score = nn.Linear(8, 1)
        self.run = (torch.jit.trace(self.encoder, torch.randn(1, 8)),) if traced else None  # a tuple, so that it is saved once

    def forward(self, x, relevant):
        hidden = self.run[0](x) if self.run else self.encoder(x)  # <- cause
        return {"loss": nn.functional.binary_cross_entropy_with_logits(self.score(hidden)[:, 0], relevant)}


def program(traced):
    lora = LoraConfig(r=2, target_modules=r"encoder\.(0|2)", modules_to_save=["score"])
    return Example(get_peft_model(Ranker(traced), lora), {"x": torch.randn(3, 8), "relevant": torch.tensor([1.0, 0.0, 1.0])})


def broken():
    return program(True)


def fixed():
    return program(False)
