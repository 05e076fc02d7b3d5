"""The norms of all weights, adapted base weights included, are logged under no_grad in the forward."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example


class Monitored(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 12)
        self.fc2 = nn.Linear(12, 2)
        self.norms = []

    def forward(self, x):
        with torch.no_grad():
            self.norms.append(self.fc1.weight.norm().item() + self.fc2.weight.norm().item())
        x = x.to(self.fc1.weight.dtype)
        return {"loss": self.fc2(self.fc1(x).relu()).square().mean()}


def healthy():
    torch.manual_seed(0)
    return Example(get_peft_model(Monitored(), LoraConfig(r=2, target_modules=["fc1", "fc2"])), {"x": torch.randn(4, 6)})
