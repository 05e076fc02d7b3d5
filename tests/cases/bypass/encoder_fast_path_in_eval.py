"""A TransformerEncoder is left in eval mode for its frozen dropout: torch then takes its fused path past every LoRA layer."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*linear[12]"
DEAD = 8
VERIFIED = True


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), num_layers=2)

    def forward(self, tokens):
        return self.encoder(self.embed(tokens))  # <- cause


class Trainer(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.tagger = get_peft_model(Tagger(), LoraConfig(target_modules=["linear1", "linear2"]))
        self.out = nn.Linear(16, 3)

    def forward(self, tokens, tags):
        return {"loss": nn.functional.cross_entropy(self.out(self.tagger(tokens)).flatten(0, 1), tags.flatten())}


def inputs():
    return {"tokens": torch.randint(20, (2, 5)), "tags": torch.randint(3, (2, 5))}


def broken():
    model = Trainer().train()
    model.tagger.eval()
    return Example(model, inputs())


def fixed():
    return Example(Trainer().train(), inputs())
