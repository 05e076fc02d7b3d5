"""A block inside reentrant checkpointing computes routing logits for a loss that was dropped: they are made and not used."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from peft_inspect.rules import Example

RULE, NAME = "PI308", "output-unused"
LAYERS = r".*blocks\.\d\.router"
DEAD = 0  # the checkpoint returns zeros for the output that nobody uses


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.mlp = nn.Linear(8, 8)

    def forward(self, x):
        return x + self.mlp(x).relu(), self.router(x)


class Model(nn.Module):
    def __init__(self, balanced):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(20, 8)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(8, 20)
        self.balanced = balanced

    def forward(self, ids, labels):
        hidden, balance = self.embed(ids).requires_grad_(True), 0.0
        for block in self.blocks:
            hidden, logits = checkpoint(block, hidden, use_reentrant=True)
            balance = balance + logits.logsumexp(-1).square().mean()
        loss = F.cross_entropy(self.head(hidden).flatten(0, 1), labels.flatten())
        return {"loss": loss + 0.01 * balance if self.balanced else loss}


def program(balanced):
    ids = torch.randint(20, (2, 5))
    return Example(get_peft_model(Model(balanced), LoraConfig(r=2, target_modules=["router", "mlp"])), {"ids": ids, "labels": ids.clone()})


def broken():
    return program(balanced=False)


def fixed():
    return program(balanced=True)
