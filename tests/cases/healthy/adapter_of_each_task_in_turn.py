"""Two tasks, an adapter each: every step activates the one of its batch."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

FIXED_DEAD = 4


def loss(model, batch):
    model.set_adapter(batch["task"])
    return model(batch["x"]).square().mean()


def healthy():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["0", "2"]), adapter_name="entities")
    model.add_adapter("sentiment", LoraConfig(r=2, target_modules=["0", "2"]))
    return Example(model, {"x": torch.randn(4, 6), "task": "sentiment"}, loss)
