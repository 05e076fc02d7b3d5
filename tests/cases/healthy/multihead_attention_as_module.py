"""nn.MultiheadAttention targeted as a whole: PEFT's own layer merges around the raw-weight call."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example


class Encoder(nn.Module):
    def __init__(self, dim=16):
        super().__init__()
        self.embed = nn.Embedding(40, dim)
        self.self_attn = nn.MultiheadAttention(dim, 2, batch_first=True)
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, 40)

    def forward(self, tokens):
        x = self.embed(tokens)
        attended, _ = self.self_attn(x, x, x, need_weights=False)
        logits = self.out(self.norm(x + attended))
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())}


def healthy():
    torch.manual_seed(0)
    model = get_peft_model(Encoder(), LoraConfig(r=4, target_modules=["self_attn"]))
    return Example(model, {"tokens": torch.randint(40, (2, 5))})
