"""A checkpointing autograd.Function whose forward takes no context, called by a name of its own: it sees only frozen inputs."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI304", "reentrant-checkpoint-without-grad-input"
LAYERS = r".*layers\.\d\.(up|down)"
DEAD = 8
VERIFIED = True


class Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(block, hidden):
        return block(hidden)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.block, hidden = inputs
        ctx.save_for_backward(hidden)

    @staticmethod
    def backward(ctx, gradient):
        (hidden,) = ctx.saved_tensors
        hidden = hidden.detach().requires_grad_(True)
        with torch.enable_grad():
            output = ctx.block(hidden)
        torch.autograd.backward(output, gradient)
        return None, hidden.grad


recomputed = Recomputed.apply


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


class LM(nn.Module):
    def __init__(self, grad_input):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.layers = nn.ModuleList([Block(), Block()])
        self.grad_input = grad_input

    def forward(self, ids):
        hidden = self.embed(ids)
        if self.grad_input:
            hidden.requires_grad_(True)
        for block in self.layers:
            hidden = recomputed(block, hidden)  # <- cause
        return hidden


class Model(nn.Module):
    def __init__(self, grad_input):
        super().__init__()
        torch.manual_seed(0)
        self.lm = get_peft_model(LM(grad_input), LoraConfig(r=2, target_modules=["up", "down"]))
        self.head = nn.Linear(8, 20)

    def forward(self, ids):
        logits = self.head(self.lm(ids)[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def broken():
    return Example(Model(grad_input=False), {"ids": torch.randint(20, (2, 5))})


def fixed():
    return Example(Model(grad_input=True), {"ids": torch.randint(20, (2, 5))})
