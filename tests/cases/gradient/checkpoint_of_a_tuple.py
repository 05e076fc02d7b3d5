"""Reentrant checkpointing looks at its arguments, not into them: a tuple hides that one of its tensors requires grad."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from peft_inspect.rules import Example

RULE, NAME = "PI304", "reentrant-checkpoint-without-grad-input"
LAYERS = r".*layers\.\d\.(cross|out)"
DEAD = 8
VERIFIED = True


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.cross = nn.Linear(8, 8)
        self.out = nn.Linear(8, 8)

    def forward(self, states):
        hidden, memory = states
        return self.out(torch.relu(self.cross(memory) + hidden)), memory


class Fusion(nn.Module):
    def __init__(self, unpacked):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.head = nn.Linear(8, 2)
        self.unpacked = unpacked

    def forward(self, query, memory, labels):
        states = (query.expand(len(memory), -1), memory)
        for layer in self.layers:
            if self.unpacked:
                states = checkpoint(lambda *parts, layer=layer: layer(parts), *states, use_reentrant=True)
            else:
                states = checkpoint(layer, states, use_reentrant=True)  # <- cause
        return {"loss": F.cross_entropy(self.head(states[0]), labels)}


class Model(nn.Module):
    def __init__(self, unpacked):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 8))
        self.fusion = get_peft_model(Fusion(unpacked), LoraConfig(r=2, target_modules=["cross", "out"], modules_to_save=["head"]))

    def forward(self, memory, labels):
        return self.fusion(self.query, memory, labels)


def broken():
    return Example(Model(False), {"memory": torch.randn(3, 8), "labels": torch.tensor([0, 1, 1])})


def fixed():
    return Example(Model(True), {"memory": torch.randn(3, 8), "labels": torch.tensor([0, 1, 1])})
