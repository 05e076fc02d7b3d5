"""The layers of an ensemble are copied into a plain dict before the wrapping, and the dict is what the forward uses."""

import copy

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI203", "unadapted-copy-called"
LAYERS = r".*members\..*"
DEAD = 4
VERIFIED = True


class Ensemble(nn.Module):
    def __init__(self):
        super().__init__()
        self.members = nn.ModuleDict({name: nn.Linear(8, 8) for name in ("left", "right")})
        self.table = {name: copy.deepcopy(member) for name, member in self.members.items()}
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        votes = [member(x) for member in self.table.values()]  # <- cause
        return self.head(torch.stack(votes).mean(0)).square().mean()


class LateEnsemble(Ensemble):
    def forward(self, x):
        return self.head(torch.stack([member(x) for member in self.members.values()]).mean(0)).square().mean()


def build(cls):
    torch.manual_seed(0)
    return Example(get_peft_model(cls(), LoraConfig(r=2, target_modules=["left", "right", "head"])), {"x": torch.randn(3, 8)})


def broken():
    return build(Ensemble)


def fixed():
    return build(LateEnsemble)
