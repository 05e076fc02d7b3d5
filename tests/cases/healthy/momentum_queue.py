"""MoCo: a momentum encoder that is a frozen, registered copy, a queue that is written in place, and a momentum update in the forward."""

import copy

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

from peft_inspect.rules import Example

FIXED_DEAD = 4


class MoCo(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = get_peft_model(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), LoraConfig(r=2, target_modules=["0", "2"]))
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(16, 4), dim=-1))

    def forward(self, x, other):
        q = F.normalize(self.query(x), dim=-1)
        with torch.no_grad():
            for slow, fast in zip(self.key.parameters(), self.query.parameters(), strict=True):
                slow.mul_(0.99).add_(fast, alpha=0.01)
            k = F.normalize(self.key(other), dim=-1)
        logits = torch.cat([(q * k).sum(-1, keepdim=True), q @ self.queue.clone().T], -1) / 0.2
        with torch.no_grad():
            self.queue[: len(k)] = k
        return {"loss": F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))}


def healthy():
    return Example(MoCo(), {"x": torch.randn(3, 6), "other": torch.randn(3, 6)})
