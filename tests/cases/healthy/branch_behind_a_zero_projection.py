"""ControlNet style: an adapted branch comes in through a projection that starts at zero: every gradient of step one is zero."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import ViTConfig, ViTModel

from peft_inspect.rules import Example


class Controlled(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=8, patch_size=4)
        self.main = ViTModel(config, add_pooling_layer=False).requires_grad_(False)
        self.control = get_peft_model(ViTModel(config, add_pooling_layer=False), LoraConfig(r=2, target_modules="all-linear"))
        self.zero = nn.Linear(16, 16)
        nn.init.zeros_(self.zero.weight)
        nn.init.zeros_(self.zero.bias)
        self.gate = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(16, 3)

    def forward(self, pixel_values, condition, labels):
        hidden = self.main(pixel_values=pixel_values).last_hidden_state
        hidden = hidden + self.gate.tanh() * self.zero(self.control(pixel_values=condition).last_hidden_state)
        return {"loss": nn.functional.cross_entropy(self.head(hidden[:, 0]), labels)}


def healthy():
    batch = {"pixel_values": torch.randn(2, 3, 8, 8), "condition": torch.randn(2, 3, 8, 8), "labels": torch.tensor([0, 2])}
    return Example(Controlled(), batch)
