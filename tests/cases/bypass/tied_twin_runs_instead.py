"""The embedding that both halves share carries the adapter, and each half calls an embedding of its own that is tied to it."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI203", "unadapted-copy-called"
LAYERS = r".*\.shared"
DEAD = 2
VERIFIED = True


class Half(nn.Module):
    def __init__(self, shared):
        super().__init__()
        self.embed_tokens, self.mix = nn.Embedding(12, 6), nn.Linear(6, 6)
        self.embed_tokens.weight = shared.weight

    def forward(self, ids):
        return self.mix(self.embed_tokens(ids)).tanh()  # <- cause


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Embedding(12, 6)
        self.encoder = Half(self.shared)
        self.head = nn.Linear(6, 2)

    def get_input_embeddings(self):
        return self.shared

    def forward(self, ids):
        return self.head(self.encoder(ids)).square().mean()


def program(target):
    torch.manual_seed(0)
    model = get_peft_model(Translator(), LoraConfig(r=2, target_modules=[target, "mix"]))
    return Example(model, {"ids": torch.arange(8).view(2, 4)})


def broken():
    return program("shared")


def fixed():
    return program("embed_tokens")
