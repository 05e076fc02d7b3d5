"""A speed patch gives every LoRA layer a class of its own whose forward runs the base layer in half precision, and nothing else."""

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import nn
from torch.nn import functional as F

from peft_inspect.rules import Example

RULE, NAME = "PI202", "base-layer-called-directly"
LAYERS = r".*(gate|up)"
DEAD = 4


class BaseOnly(Linear):
    def forward(self, x, *args, **kwargs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.base_layer(x).float()  # <- cause


class WithAdapter(Linear):
    def forward(self, x, *args, **kwargs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            base = self.base_layer(x).float()
        return base + sum(self.lora_B[name](self.lora_A[name](x)) * self.scaling[name] for name in self.active_adapters)


class GatedMLP(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gate = nn.Linear(8, 16)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 2)

    def forward(self, x, labels):
        return {"loss": F.cross_entropy(self.down(F.silu(self.gate(x)) * self.up(x)), labels)}


def program(patch):
    model = get_peft_model(GatedMLP(), LoraConfig(r=2, target_modules=["gate", "up"], modules_to_save=["down"]))
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = patch
    return Example(model, {"x": torch.randn(3, 8), "labels": torch.tensor([0, 1, 1])})


def broken():
    return program(BaseOnly)


def fixed():
    return program(WithAdapter)
