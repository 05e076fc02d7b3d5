"""LLaVA-style encode_images under no_grad: the vision LoRA is dead, the language model's LoRA alive."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI303", "no-grad-region"
LAYERS = r".*vision_tower\..*"
DEAD = 12
VERIFIED = True


class VisionLanguageModel(nn.Module):
    tune_vision_tower = False

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.vision_tower = CLIPVisionModel(
            CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=8, patch_size=4)
        )
        self.mm_projector = nn.Linear(16, 16)
        self.language_model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
            )
        )

    def encode_images(self, pixel_values):
        with torch.set_grad_enabled(self.tune_vision_tower):  # <- cause
            features = self.vision_tower(pixel_values).last_hidden_state
        return self.mm_projector(features)

    def forward(self, input_ids, pixel_values, labels):
        images = self.encode_images(pixel_values)
        text = self.language_model.get_input_embeddings()(input_ids)
        ignored = labels.new_full(images.shape[:2], -100)
        return self.language_model(inputs_embeds=torch.cat([images, text], dim=1), labels=torch.cat([ignored, labels], dim=1))


class TunedVisionLanguageModel(VisionLanguageModel):
    tune_vision_tower = True


def program(model):
    peft_model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    ids = torch.tensor([[5, 6, 7, 8]])
    return Example(peft_model, {"input_ids": ids, "pixel_values": torch.rand(1, 3, 8, 8), "labels": ids})


def broken():
    return program(VisionLanguageModel())


def fixed():
    return program(TunedVisionLanguageModel())
