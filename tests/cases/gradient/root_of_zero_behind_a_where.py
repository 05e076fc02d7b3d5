"""`torch.where` hides the distances of zero from the loss, and not from the backward: the root there has an infinite slope."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI315", "non-finite-gradient"
LAYERS = r".*\.0"
DEAD = 0


class Distances(nn.Module):
    def __init__(self, safe):
        super().__init__()
        self.safe = safe

    def forward(self, points):
        squares = (points[:, None] - points[None]).square().sum(-1)
        if self.safe:
            squares = squares + torch.eye(len(points))
        roots = squares.sqrt()  # <- cause
        return torch.where(squares > 0, roots, torch.zeros_like(roots))


def program(safe):
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(6, 3), Distances(safe)), LoraConfig(r=2, target_modules=["0"]))
    return Example(model, {"input": torch.randn(4, 6)}, lambda model, batch: model(batch["input"]).mean())


def broken():
    return program(safe=False)


def fixed():
    return program(safe=True)
