"""Reentrant checkpointing after a stem that trains: the first block's input requires grad by itself."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint

from peft_inspect.rules import Example


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(6, 8)
        blocks = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3)))
        self.blocks = get_peft_model(blocks, LoraConfig(r=2, target_modules=["0.0", "1.0", "2.0"]))
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        hidden = self.stem(x)
        for block in self.blocks.get_base_model():
            hidden = checkpoint(block, hidden, use_reentrant=True)
        return {"loss": self.head(hidden).square().mean()}


def healthy():
    return Example(Net().train(), {"x": torch.randn(4, 6)})
