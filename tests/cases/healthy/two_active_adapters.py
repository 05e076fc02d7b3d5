"""Two adapters active at once, both trained: their outputs add up in every layer."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    model = get_peft_model(net, LoraConfig(r=2, target_modules=["0", "2"]), adapter_name="style")
    model.add_adapter("content", LoraConfig(r=4, target_modules=["0", "2"]))
    model.base_model.set_adapter(["style", "content"])
    return Example(model, {"input": torch.randn(3, 6)}, lambda model, batch: model(batch["input"]).square().mean())
