"""Switch routing without the gate's probability: the router is adapted and only picks."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

from peft_inspect.rules import Example

RULE, NAME = "PI306", "non-differentiable-step"
LAYERS = r".*\.gate"
DEAD = 2


class Switch(nn.Module):
    def __init__(self, weighted):
        super().__init__()
        self.gate = nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.weighted = weighted

    def forward(self, x):
        logits = self.gate(x)
        picked = F.one_hot(logits.argmax(-1), 3).to(x.dtype)  # <- cause
        if self.weighted:
            picked = picked * logits.softmax(-1)
        out = torch.stack([expert(x) for expert in self.experts], -1)
        return {"loss": (out @ picked.unsqueeze(-1)).squeeze(-1).square().mean()}


def program(weighted):
    return Example(get_peft_model(Switch(weighted), LoraConfig(r=2, target_modules=r"gate|experts\.\d")), {"x": torch.randn(6, 8)})


def broken():
    return program(False)


def fixed():
    return program(True)
