"""A fused norm took copies of the weights when it was put around the adapted norms: these are never called."""

import torch
from peft import LNTuningConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI204", "adapter-layer-not-called"
LAYERS = r".*\.norm\.held"
DEAD = 4


class Fused(nn.Module):
    def __init__(self, held, kept):
        super().__init__()
        self.held, self.kept = held, kept
        self.register_buffer("weight", held.weight.detach().clone())
        self.register_buffer("bias", held.bias.detach().clone())

    def forward(self, x):
        if self.kept:
            return nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias)  # <- cause
        return self.held(x)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(6), nn.Linear(6, 6)

    def forward(self, x):
        return x + self.mix(self.norm(x)).tanh()


class Model(nn.Sequential):
    def __init__(self):
        super().__init__(Block(), Block(), nn.LayerNorm(6))


def program(kept):
    torch.manual_seed(0)
    model = get_peft_model(Model(), LNTuningConfig(target_modules=["norm"]))
    for module in model.modules():
        if isinstance(module, Block):
            module.norm = Fused(module.norm, kept)
    return Example(model, {"input": torch.randn(2, 4, 6)}, lambda model, batch: model(batch["input"]).square().mean())


def broken():
    return program(kept=True)


def fixed():
    return program(kept=False)
