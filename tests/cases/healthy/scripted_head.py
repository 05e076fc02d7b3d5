"""The head is scripted: a module that keeps what it registers in C++, with an adapted encoder in front of it."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        encoder = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
        self.encoder = get_peft_model(encoder, LoraConfig(r=2, target_modules=["0", "2"]))
        self.head = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)))

    def forward(self, x, labels):
        return {"loss": nn.functional.cross_entropy(self.head(self.encoder(x)), labels)}


def healthy():
    return Example(Model(), {"x": torch.randn(3, 8), "labels": torch.tensor([0, 1, 1])})
