"""Experts as a list of ModuleDicts: those that this batch routes nothing to are not called."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

FIXED_DEAD = 8


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.gate = nn.Embedding(16, 8), nn.Linear(8, 4, bias=False)
        self.experts = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(8, 12), "down": nn.Linear(12, 8)}) for _ in range(4))
        self.head = nn.Linear(8, 16)

    def forward(self, input_ids, labels):
        hidden = self.tokens(input_ids).flatten(0, 1)
        chosen = torch.zeros(len(hidden), dtype=torch.long)
        chosen[::2] = 1  # a router that has learned to use two of them
        mixed = hidden.clone()
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero().flatten()
            if len(rows):
                mixed = mixed.index_add(0, rows, expert["down"](expert["up"](hidden[rows]).relu()))
        return {"loss": nn.functional.cross_entropy(self.head(mixed), labels.flatten())}


def healthy():
    torch.manual_seed(0)
    model = get_peft_model(Mixture(), LoraConfig(r=2, target_modules=["up", "down", "head"]))
    ids = torch.arange(8).view(2, 4)
    return Example(model, {"input_ids": ids, "labels": ids})
