"""For speed, q, k and v were concatenated into one buffer when the model was built; training multiplies by the buffer."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI204", "adapter-layer-not-called"
LAYERS = r".*\.(query|key|value)"
DEAD = 12
VERIFIED = True


class Attention(nn.Module):
    def __init__(self, width, fuse):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.output = nn.Linear(width, width)
        if fuse:
            weights = torch.cat([self.query.weight, self.key.weight, self.value.weight])
            self.register_buffer("fused", weights.detach().clone(), persistent=False)

    def forward(self, x):
        if hasattr(self, "fused"):
            query, key, value = (x @ self.fused.T).chunk(3, -1)  # <- cause
        else:
            query, key, value = self.query(x), self.key(x), self.value(x)
        return self.output(nn.functional.scaled_dot_product_attention(query, key, value))


def program(fuse):
    torch.manual_seed(0)
    model = nn.Sequential(Attention(8, fuse), nn.LayerNorm(8), Attention(8, fuse))
    peft_model = get_peft_model(model, LoraConfig(r=2, target_modules=["query", "key", "value", "output"]))
    return Example(peft_model, {"input": torch.randn(2, 5, 8)}, lambda model, batch: model(batch["input"]).square().mean())


def broken():
    return program(fuse=True)


def fixed():
    return program(fuse=False)
