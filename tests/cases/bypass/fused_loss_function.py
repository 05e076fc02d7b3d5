"""A fused loss in a custom autograd function takes the head's weight, and computes a gradient for the hidden states alone."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*head"
DEAD = 2
VERIFIED = None  # the loss has no gradient to give for any weight, so nothing was tried


class FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, labels):
        logits = hidden @ weight.T  # <- cause
        ctx.save_for_backward(logits.softmax(-1) - F.one_hot(labels, len(weight)), weight)
        return F.cross_entropy(logits, labels)

    @staticmethod
    def backward(ctx, gradient):
        errors, weight = ctx.saved_tensors
        return gradient * errors @ weight / len(errors), None, None


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5, bias=False)

    def forward(self, x, labels):
        return {"loss": FusedCrossEntropy.apply(self.body(x), self.head.weight, labels)}


class PlainTagger(Tagger):
    def forward(self, x, labels):
        return {"loss": F.cross_entropy(self.head(self.body(x)), labels)}


def build(cls):
    torch.manual_seed(0)
    model = get_peft_model(cls(), LoraConfig(r=2, target_modules=["body", "head"]))
    return Example(model, {"x": torch.randn(4, 8), "labels": torch.tensor([0, 1, 2, 3])})


def broken():
    return build(Tagger)


def fixed():
    return build(PlainTagger)
