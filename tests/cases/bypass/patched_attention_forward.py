"""A speed patch replaces the attention forward of every block with one that multiplies by raw weights."""

import types

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import ViTConfig, ViTForImageClassification

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*\.mlp\.fc1|.*intermediate\.dense"
DEAD = 4
VERIFIED = True


def vit():
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4, num_labels=3
    )
    return ViTForImageClassification(config)


def fused_mlp(self, hidden, *args, **kwargs):
    first = self.fc1 if hasattr(self, "fc1") else self.dense
    hidden = F.gelu(F.linear(hidden, first.weight, first.bias))  # <- cause
    return self.fc2(hidden) if hasattr(self, "fc2") else hidden


def patch(model):
    for module in model.modules():
        if type(module).__name__ in {"ViTMLP", "ViTIntermediate"}:
            module.forward = types.MethodType(fused_mlp, module)


def program(patched):
    model = get_peft_model(vit(), LoraConfig(r=2, target_modules=r".*(fc1|fc2|intermediate\.dense|\.output\.dense|q_proj|query)"))
    if patched:
        patch(model)
    return Example(model, {"pixel_values": torch.rand(2, 3, 8, 8), "labels": torch.tensor([0, 2])})


def broken():
    return program(patched=True)


def fixed():
    return program(patched=False)
