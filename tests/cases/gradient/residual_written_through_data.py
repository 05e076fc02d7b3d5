"""To save memory the block's output is added to the residual stream through `.data`: the value is there, its graph is not."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r".*\.block"
DEAD = 2


class Residual(nn.Module):
    def __init__(self, through_data):
        super().__init__()
        self.stem, self.block, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.through_data = through_data

    def forward(self, x):
        states = self.stem(x)
        update = self.block(states)
        if self.through_data:
            states.data.add_(update)  # <- cause
        else:
            states = states + update
        return self.head(states)


def program(through_data):
    torch.manual_seed(0)
    model = get_peft_model(Residual(through_data), LoraConfig(r=2, target_modules=["stem", "block"]))
    return Example(model, {"x": torch.randn(4, 6)}, lambda model, batch: model(batch["x"]).square().mean())


def broken():
    return program(through_data=True)


def fixed():
    return program(through_data=False)
