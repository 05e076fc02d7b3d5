"""A checkpointing autograd.Function of one's own runs its block again in the backward, and there a gate is detached."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r".*blocks\.\d\.gate"
DEAD = 4
VERIFIED = True


class Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, block, hidden):
        ctx.block = block
        ctx.save_for_backward(hidden)
        return block(hidden)

    @staticmethod
    def backward(ctx, gradient):
        hidden = ctx.saved_tensors[0].detach().requires_grad_(True)
        with torch.enable_grad():
            output = ctx.block(hidden)
        torch.autograd.backward(output, gradient)
        return None, hidden.grad


class GatedBlock(nn.Module):
    def __init__(self, kept):
        super().__init__()
        self.gate = nn.Linear(8, 8)
        self.up = nn.Linear(8, 8)
        self.kept = kept

    def forward(self, x):
        gate = self.gate(x).sigmoid()
        if not self.kept:
            gate = gate.data  # <- cause
        return x + gate * self.up(x)


class Backbone(nn.Module):
    def __init__(self, kept):
        super().__init__()
        self.blocks = nn.ModuleList(GatedBlock(kept) for _ in range(2))

    def forward(self, hidden):
        for block in self.blocks:
            hidden = Recomputed.apply(block, hidden)
        return hidden


class Model(nn.Module):
    def __init__(self, kept):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(4, 8)
        self.backbone = get_peft_model(Backbone(kept), LoraConfig(r=2, target_modules=["gate", "up"]))

    def forward(self, x):
        return self.backbone(self.stem(x)).square().mean()


def broken():
    return Example(Model(kept=False), {"x": torch.randn(3, 4)})


def fixed():
    return Example(Model(kept=True), {"x": torch.randn(3, 4)})
