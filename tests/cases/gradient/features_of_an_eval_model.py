"""Gradients are on only while the model trains, and the model was left in eval mode by the last evaluation."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import ViTConfig, ViTModel

from peft_inspect.rules import Example

RULE, NAME = "PI303", "no-grad-region"
LAYERS = r".*backbone\..*"
DEAD = 8
VERIFIED = True


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        self.backbone = ViTModel(ViTConfig(image_size=8, patch_size=4, **shape), add_pooling_layer=False)
        self.queries = nn.Parameter(torch.randn(3, 16))
        self.decoder = nn.TransformerDecoderLayer(16, 2, 24, batch_first=True)
        self.boxes = nn.Linear(16, 4)

    def forward(self, pixel_values, boxes):
        with torch.set_grad_enabled(self.training):  # <- cause
            memory = self.backbone(pixel_values).last_hidden_state
        queries = self.decoder(self.queries.expand(len(memory), -1, -1), memory)
        return {"loss": nn.functional.l1_loss(self.boxes(queries).sigmoid(), boxes)}


def program():
    lora = LoraConfig(r=2, target_modules=r".*backbone.*\.(q_proj|v_proj|query|value)", modules_to_save=["boxes"])
    return get_peft_model(Detector(), lora), {"pixel_values": torch.rand(1, 3, 8, 8), "boxes": torch.rand(1, 3, 4)}


def broken():
    model, batch = program()
    return Example(model.eval(), batch)


def fixed():
    model, batch = program()
    return Example(model.train(), batch)
