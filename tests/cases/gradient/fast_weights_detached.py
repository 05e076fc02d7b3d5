"""A meta-learning step calls the encoder with fast weights that were cut from the parameters."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r"encoder\..*\.[02]"
DEAD = 4
VERIFIED = True


class Learner(nn.Module):
    def __init__(self, cut):
        super().__init__()
        self.encoder = get_peft_model(
            nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8)), LoraConfig(r=2, target_modules=["0", "2"])
        )
        self.head = nn.Linear(8, 2)
        self.cut = cut

    def forward(self, x, labels):
        fast = dict(self.encoder.named_parameters())
        if self.cut:
            fast = {name: weight.detach() for name, weight in fast.items()}  # <- cause
        return {"loss": F.cross_entropy(self.head(functional_call(self.encoder, fast, (x,))), labels)}


def program(cut):
    return Example(Learner(cut), {"x": torch.randn(2, 8), "labels": torch.tensor([0, 1])})


def broken():
    return program(True)


def fixed():
    return program(False)
