"""torch.set_grad_enabled(False) as a plain statement before the tower, and True again after it."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from peft_inspect.rules import Example

RULE, NAME = "PI303", "no-grad-region"
LAYERS = r"tower\..*(q|v)_proj"
DEAD = 8
VERIFIED = True


class Retriever(nn.Module):
    train_tower = False

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        clip = CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
        )
        self.tower = get_peft_model(CLIPVisionModel(clip), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        self.project = nn.Linear(16, 8)

    def forward(self, pixel_values):
        if not self.train_tower:
            torch.set_grad_enabled(False)  # <- cause
        pooled = self.tower(pixel_values=pixel_values).pooler_output
        torch.set_grad_enabled(True)
        embeddings = nn.functional.normalize(self.project(pooled), dim=-1)
        return {"loss": (embeddings @ embeddings.T).logsumexp(-1).mean()}


class TunedRetriever(Retriever):
    train_tower = True


def broken():
    return Example(Retriever(), {"pixel_values": torch.rand(3, 3, 8, 8)})


def fixed():
    return Example(TunedRetriever(), {"pixel_values": torch.rand(3, 3, 8, 8)})
