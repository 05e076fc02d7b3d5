"""The skip branch of a block is detached; the block is run again in the backward, so no gradient shows where the cut is made."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r".*blocks\.\d\.branch"
DEAD = 4
VERIFIED = True


class Block(nn.Module):
    def __init__(self, kept):
        super().__init__()
        self.branch = nn.Linear(8, 8)
        self.mix = nn.Linear(8, 8)
        self.kept = kept

    def forward(self, x):
        branch = torch.tanh(self.branch(x))
        if not self.kept:
            branch = branch.detach()  # <- cause
        return x + self.mix(x) * branch


class Tagger(nn.Module):
    def __init__(self, kept):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(4, 8)
        self.blocks = nn.ModuleList(Block(kept) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x, labels):
        hidden = self.stem(x)
        for block in self.blocks:
            hidden = checkpoint(block, hidden, use_reentrant=True)
        return {"loss": F.cross_entropy(self.head(hidden), labels)}


def program(kept):
    lora = LoraConfig(r=2, target_modules=["branch", "mix"], modules_to_save=["stem", "head"])
    return Example(get_peft_model(Tagger(kept), lora), {"x": torch.randn(3, 4), "labels": torch.tensor([0, 1, 2])})


def broken():
    return program(False)


def fixed():
    return program(True)
