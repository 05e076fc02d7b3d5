"""Siglip's attention pooling head is an nn.MultiheadAttention: all-linear puts LoRA on its out_proj, which never runs."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import SiglipVisionConfig, SiglipVisionModel

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*head\.attention\.out_proj"
SOURCE_ENDS = "modeling_siglip.py"
DEAD = 2
VERIFIED = True


def siglip():
    torch.manual_seed(0)
    return SiglipVisionModel(
        SiglipVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4)
    )


def pooled_loss(model, batch):
    return model(**batch).pooler_output.pow(2).mean()


def broken():
    model = get_peft_model(siglip(), LoraConfig(r=2, target_modules="all-linear"))
    return Example(model, {"pixel_values": torch.rand(2, 3, 8, 8)}, pooled_loss)


def fixed():
    model = get_peft_model(siglip(), LoraConfig(r=2, target_modules="all-linear", exclude_modules=r".*head\.attention\.out_proj"))
    return Example(model, {"pixel_values": torch.rand(2, 3, 8, 8)}, pooled_loss)
