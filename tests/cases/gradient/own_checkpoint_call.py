"""torch.utils.checkpoint with use_reentrant=True around every block of a frozen model."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint

from peft_inspect.rules import Example

RULE, NAME = "PI304", "reentrant-checkpoint-without-grad-input"
LAYERS = r".*blocks\.\d\.fc[12]"
DEAD = 8
VERIFIED = True


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.fc2(torch.relu(self.fc1(self.norm(x))))


class LanguageModel(nn.Module):
    def __init__(self, use_reentrant, vocab=30, width=12):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.lm_head = nn.Linear(width, vocab)
        self.use_reentrant = use_reentrant

    def forward(self, tokens):
        x = self.embed(tokens[:, :-1])
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.use_reentrant)  # <- cause
        return nn.functional.cross_entropy(self.lm_head(x).flatten(0, 1), tokens[:, 1:].flatten())


def program(use_reentrant):
    torch.manual_seed(0)
    model = get_peft_model(LanguageModel(use_reentrant), LoraConfig(target_modules=["fc1", "fc2"]))
    return Example(model, {"tokens": torch.randint(30, (2, 7))})


def broken():
    return program(use_reentrant=True)


def fixed():
    return program(use_reentrant=False)
