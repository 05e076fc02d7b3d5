"""A table of task heads is built before the wrapping; PEFT trains a copy of the head, and the table still holds the original."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

from peft_inspect.rules import Example

RULE, NAME = "PI202", "base-layer-called-directly"
LAYERS, MODULES = None, ("base_model.model.topic",)
DEAD = 0
VERIFIED = True


class MultiTask(nn.Module):
    def __init__(self, looked_up):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(8, 8)
        self.topic = nn.Linear(8, 4)
        self.heads = None if looked_up else {"topic": self.topic}

    def forward(self, x, labels):
        head = self.heads["topic"] if self.heads else self.topic
        return {"loss": F.cross_entropy(head(torch.tanh(self.encoder(x))), labels)}  # <- cause


def program(looked_up):
    lora = LoraConfig(r=2, target_modules=["encoder"], modules_to_save=["topic"])
    return Example(get_peft_model(MultiTask(looked_up), lora), {"x": torch.randn(3, 8), "labels": torch.tensor([0, 2, 3])})


def broken():
    return program(looked_up=False)


def fixed():
    return program(looked_up=True)
