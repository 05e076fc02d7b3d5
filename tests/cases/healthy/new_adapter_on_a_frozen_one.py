"""Continual learning: the adapter of an earlier stage stays active and frozen, and a new one is trained on top of it."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

FIXED_DEAD = 4


def healthy():
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["0", "2"])
    model = get_peft_model(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)), config, adapter_name="before")
    model.add_adapter("now", config)
    model.base_model.set_adapter(["before", "now"])
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.requires_grad_(".now." in name)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    return Example(model, {"input": torch.randn(4, 6)}, lambda model, batch: model(batch["input"]).square().mean(), optimizer)
