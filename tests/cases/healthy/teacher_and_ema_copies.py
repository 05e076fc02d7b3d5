"""A frozen deep copy of the base as teacher and an EMA copy of the student: neither takes the student's place."""

import copy

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example


class MeanTeacher(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        base = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 4))
        self.teacher = copy.deepcopy(base).eval().requires_grad_(False)
        self.student = get_peft_model(base, LoraConfig(r=2, target_modules=["0", "2"]))
        self.ema = [copy.deepcopy(self.student)]

    def forward(self, x):
        with torch.no_grad():
            targets = (self.teacher(x) + self.ema[0](x)) / 2 + 1
        return {"loss": nn.functional.mse_loss(self.student(x), targets)}


def healthy():
    return Example(MeanTeacher(), {"x": torch.randn(5, 6)})
