"""A distance written as an autograd.Function gives a gradient to its first argument and none to its second, which trains too."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI309", "no-gradient"
LAYERS = r".*document\.(0|2)"
DEAD = 4


class HalfDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx, left, right):
        ctx.save_for_backward(left, right)
        return (left - right).square().sum(-1)

    @staticmethod
    def backward(ctx, gradient):
        left, right = ctx.saved_tensors
        return 2 * (left - right) * gradient[:, None], None  # <- cause


class Distance(HalfDistance):
    @staticmethod
    def backward(ctx, gradient):
        first, _ = HalfDistance.backward(ctx, gradient)
        return first, -first


class DualEncoder(nn.Module):
    def __init__(self, distance):
        super().__init__()
        torch.manual_seed(0)
        self.query = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
        self.document = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
        self.distance = distance

    def forward(self, query, document):
        return {"loss": self.distance.apply(self.query(query), self.document(document)).mean()}


def program(distance):
    model = get_peft_model(DualEncoder(distance), LoraConfig(r=2, target_modules=["0", "2"]))
    return Example(model, {"query": torch.randn(3, 8), "document": torch.randn(3, 8)})


def broken():
    return program(HalfDistance)


def fixed():
    return program(Distance)
