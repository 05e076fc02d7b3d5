"""The checkpointed function takes its input from the closure, so that checkpoint sees no tensor at all."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from peft_inspect.rules import Example

RULE, NAME = "PI304", "reentrant-checkpoint-without-grad-input"
LAYERS = r".*(stem|blocks\.\d\.0)"
DEAD = 8
VERIFIED = True


class Mixer(nn.Module):
    def __init__(self, passed):
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(3))
        self.head = nn.Linear(8, 2)
        self.passed = passed

    def forward(self, x, labels):
        x = self.stem(x)
        for block in self.blocks:
            if self.passed:
                x = checkpoint(block, x, use_reentrant=True)
            else:
                x = checkpoint(lambda block=block, x=x: block(x), use_reentrant=True)  # <- cause
        return {"loss": F.cross_entropy(self.head(x), labels)}


def program(passed):
    lora = LoraConfig(r=2, target_modules=r"stem|blocks\.\d\.0", modules_to_save=["head"])
    return Example(get_peft_model(Mixer(passed), lora), {"x": torch.randn(2, 4), "labels": torch.tensor([0, 1])})


def broken():
    return program(False)


def fixed():
    return program(True)
