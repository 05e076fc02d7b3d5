"""scGPT-style cell encoder on nn.TransformerEncoder: MultiheadAttention never calls out_proj, it reads its weight."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*\.out_proj"
DEAD = 4
VERIFIED = True


class CellEncoder(nn.Module):
    def __init__(self, n_genes=40, dim=16):
        super().__init__()
        self.embedding = nn.Embedding(n_genes, dim)
        layer = nn.TransformerEncoderLayer(dim, nhead=2, dim_feedforward=32, batch_first=True, dropout=0.0)
        self.transformer = nn.TransformerEncoder(layer, num_layers=2)
        self.decoder = nn.Linear(dim, n_genes)

    def forward(self, genes):
        hidden = self.embedding(genes)
        hidden = self.transformer(hidden)  # <- cause
        return self.decoder(hidden)


def build(targets):
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=targets)
    return get_peft_model(CellEncoder(), config).train()


def loss(model, batch):
    logits = model(batch["genes"])
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch["genes"].flatten())


def broken():
    return Example(build(["out_proj", "linear1", "linear2"]), {"genes": torch.randint(40, (2, 6))}, loss)


def fixed():
    return Example(build(["linear1", "linear2"]), {"genes": torch.randint(40, (2, 6))}, loss)
