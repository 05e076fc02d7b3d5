"""Accuracy by argmax, a detached copy for logging, .item() for the progress bar: none lies on the way to the loss."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import ViTConfig, ViTModel

from peft_inspect.rules import Example


class LoggedClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4)
        vit = ViTModel(config, add_pooling_layer=False)
        self.vit = get_peft_model(vit, LoraConfig(r=2, target_modules=r".*\.(q_proj|v_proj|query|value)"))
        self.head = nn.Linear(16, 3)
        self.log = {}

    def forward(self, pixel_values, labels):
        features = self.vit(pixel_values=pixel_values).last_hidden_state[:, 0]
        logits = self.head(features)
        loss = nn.functional.cross_entropy(logits, labels)
        self.log["features"] = features.detach().numpy()
        self.log["accuracy"] = (logits.argmax(-1) == labels).float().mean().item()
        self.log["loss"] = float(loss)
        return {"loss": loss, "logits": logits}


def healthy():
    return Example(LoggedClassifier(), {"pixel_values": torch.rand(2, 3, 8, 8), "labels": torch.tensor([0, 2])})
