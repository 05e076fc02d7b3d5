"""Features of the tower are detached before the trainable head, as in a feature cache."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import ViTConfig, ViTModel

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r"vit\..*(query|value|q_proj|v_proj)"
DEAD = 8
VERIFIED = True


class Probe(nn.Module):
    def __init__(self, detach):
        super().__init__()
        torch.manual_seed(0)
        config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4)
        backbone = ViTModel(config, add_pooling_layer=False)
        self.vit = get_peft_model(backbone, LoraConfig(target_modules=r".*\.(query|value|q_proj|v_proj)"))
        self.classifier = nn.Linear(16, 4)
        self.detach = detach

    def forward(self, pixel_values, labels):
        hidden = self.vit(pixel_values=pixel_values).last_hidden_state
        pooled = hidden[:, 0]
        if self.detach:
            pooled = pooled.detach()  # <- cause
        return {"loss": nn.functional.cross_entropy(self.classifier(pooled), labels)}


images = {"pixel_values": torch.rand(2, 3, 8, 8), "labels": torch.tensor([1, 0])}


def broken():
    return Example(Probe(detach=True), images)


def fixed():
    return Example(Probe(detach=False), images)
