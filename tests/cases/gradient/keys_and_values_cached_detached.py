"""Keys and values go into a cache, each detached on a line of its own: one fault, and the fix is tried on both."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r".*attention\.(key|value)"
DEAD = 4
VERIFIED = True


class CachedAttention(nn.Module):
    def __init__(self, kept):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.kept = kept

    def forward(self, x):
        cache = {}
        if self.kept:
            cache["k"], cache["v"] = self.key(x), self.value(x)
        else:
            cache["k"] = self.key(x).detach()  # <- cause
            cache["v"] = self.value(x).detach()
        return F.scaled_dot_product_attention(self.query(x), cache["k"], cache["v"])


class Scorer(nn.Module):
    def __init__(self, kept):
        super().__init__()
        torch.manual_seed(0)
        self.attention = CachedAttention(kept)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.attention(x)).square().mean()


def program(kept):
    lora = LoraConfig(r=2, target_modules=["query", "key", "value"], modules_to_save=["head"])
    return Example(get_peft_model(Scorer(kept), lora), {"x": torch.randn(2, 4, 8)})


def broken():
    return program(False)


def fixed():
    return program(True)
