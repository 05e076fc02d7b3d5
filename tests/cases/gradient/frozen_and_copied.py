"""Two unrelated faults: one encoder's adapter was frozen by a helper, the other's was copied away before the wrapping."""

import copy

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

FAULTS = (
    {"RULE": "PI302", "NAME": "frozen-after-wrapping", "LAYERS": r"query\..*", "VERIFIED": True},
    {"RULE": "PI203", "NAME": "unadapted-copy-called", "LAYERS": r"passage\..*"},
)
DEAD = 8


def encoder():
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))


class BiEncoder(nn.Module):
    def __init__(self, sound):
        super().__init__()
        torch.manual_seed(0)
        lora = LoraConfig(r=2, target_modules=["0", "2"])
        passage = encoder()
        index = copy.deepcopy(passage).requires_grad_(False)
        self.query = get_peft_model(encoder(), lora)
        self.passage = get_peft_model(passage, lora)
        self.index = self.passage if sound else index
        if not sound:
            self.query.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, question, answer):
        vectors = self.index(answer)  # <- cause PI203
        scores = self.scale * self.query(question) @ vectors.T
        return nn.functional.cross_entropy(scores, torch.arange(len(scores)))


def broken():
    return Example(BiEncoder(sound=False), {"question": torch.randn(3, 6), "answer": torch.randn(3, 6)})


def fixed():
    return Example(BiEncoder(sound=True), {"question": torch.randn(3, 6), "answer": torch.randn(3, 6)})
