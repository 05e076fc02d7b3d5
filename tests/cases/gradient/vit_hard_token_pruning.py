"""A ViT keeps the patches with the highest learned score; the scorer is adapted, and only its ranking is used."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import ViTConfig, ViTModel

from peft_inspect.rules import Example

RULE, NAME = "PI306", "non-differentiable-step"
LAYERS = r".*scorer\.[02]"
DEAD = 4


class PrunedViT(nn.Module):
    def __init__(self, weighted):
        super().__init__()
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        self.vit = ViTModel(ViTConfig(image_size=16, patch_size=4, **shape), add_pooling_layer=False)
        self.scorer = nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 1))
        self.head = nn.Linear(16, 3)
        self.weighted = weighted

    def forward(self, pixel_values, labels):
        tokens = self.vit(pixel_values).last_hidden_state
        scores = self.scorer(tokens).squeeze(-1)
        kept = scores.topk(5, dim=1).indices  # <- cause
        chosen = tokens.gather(1, kept.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        if self.weighted:
            chosen = chosen * scores.gather(1, kept).sigmoid().unsqueeze(-1)
        logits = self.head(chosen.mean(1))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def program(weighted):
    lora = LoraConfig(r=2, target_modules=r".*(scorer\.[02]|q_proj|query)", modules_to_save=["head"])
    batch = {"pixel_values": torch.rand(2, 3, 16, 16), "labels": torch.tensor([0, 2])}
    return Example(get_peft_model(PrunedViT(weighted), lora), batch)


def broken():
    return program(weighted=False)


def fixed():
    return program(weighted=True)
