"""SimSiam: one view is detached on purpose, and the same adapters train through the other."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example


class SimSiam(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 8))
        self.encoder = get_peft_model(encoder, LoraConfig(r=2, target_modules=["0", "2"]))
        self.predictor = nn.Linear(8, 8)

    def forward(self, view_one, view_two):
        left, right = self.encoder(view_one), self.encoder(view_two)
        loss = -nn.functional.cosine_similarity(self.predictor(left), right.detach()).mean()
        return loss - nn.functional.cosine_similarity(self.predictor(right), left.detach()).mean()


def healthy():
    return Example(SimSiam(), {"view_one": torch.randn(4, 10), "view_two": torch.randn(4, 10)})
