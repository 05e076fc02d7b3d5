"""With one image per batch, stochastic depth leaves whole layers out: another draw trains them."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import BeitConfig, BeitForImageClassification

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    config = BeitConfig(
        hidden_size=16,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=4,
        drop_path_rate=0.6,
        num_labels=3,
    )
    lora = LoraConfig(r=2, target_modules=r".*\.(q_proj|v_proj|query|value)", modules_to_save=["classifier"])
    model = get_peft_model(BeitForImageClassification(config), lora).train()
    return Example(model, {"pixel_values": torch.randn(1, 3, 16, 16), "labels": torch.tensor([1])})
