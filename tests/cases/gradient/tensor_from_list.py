"""The outputs of two encoders are joined with torch.tensor([...]), which copies numbers."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r"scorer\..*"
DEAD = 4


class Ranker(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        scorer = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        self.scorer = get_peft_model(scorer, LoraConfig(r=2, target_modules=["0", "2"]))
        self.temperature = nn.Parameter(torch.ones(()))

    def scores(self, documents):
        return torch.tensor([self.scorer(document).tolist() for document in documents])  # <- cause

    def forward(self, documents, best):
        return {"loss": nn.functional.cross_entropy(self.scores(documents) / self.temperature, best)}


class StackedRanker(Ranker):
    def scores(self, documents):
        return torch.stack([self.scorer(document) for document in documents])


def broken():
    return Example(Ranker(), {"documents": torch.randn(4, 6), "best": torch.tensor([0, 1, 2, 0])})


def fixed():
    return Example(StackedRanker(), {"documents": torch.randn(4, 6), "best": torch.tensor([0, 1, 2, 0])})
