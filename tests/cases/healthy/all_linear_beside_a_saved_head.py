"""all-linear, and a head that is trained in full: PEFT writes the head into its list of targets, and leaves it to modules_to_save."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import ViTConfig, ViTForImageClassification

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=8, patch_size=4, num_labels=3
    )
    lora = LoraConfig(r=2, target_modules="all-linear", modules_to_save=["classifier"])
    model = get_peft_model(ViTForImageClassification(config), lora)
    return Example(model, {"pixel_values": torch.randn(2, 3, 8, 8), "labels": torch.tensor([0, 2])})
