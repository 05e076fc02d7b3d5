"""A hook on every block keeps its output for a dashboard and returns what it kept: no block returns a graph."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r".*\.\d\.0"
DEAD = 6
VERIFIED = True


def program(returns):
    torch.manual_seed(0)
    kept = {}

    def keep(block, _inputs, output):
        kept[id(block)] = output.detach()  # <- cause
        return kept[id(block)] if returns else None

    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3)), nn.Linear(6, 2))
    model = get_peft_model(blocks, LoraConfig(r=2, target_modules=r"\d\.0", modules_to_save=["3"]))
    for block in list(model.base_model.model)[:3]:
        block.register_forward_hook(keep)
    return Example(model, {"input": torch.randn(4, 6)}, lambda model, batch: model(batch["input"]).square().mean())


def broken():
    return program(returns=True)


def fixed():
    return program(returns=False)
