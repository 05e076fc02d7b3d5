"""LLaVA takes its image features before the last vision layer (vision_feature_layer=-2), whose LoRA never trains."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from peft_inspect.rules import Example

RULE, NAME = "PI308", "output-unused"
LAYERS = r".*vision_tower\.(vision_model\.)?encoder\.layers\.2\..*"
DEAD = 4


def llava():
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=8, patch_size=4, projection_dim=16
    )
    text = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_id=39))


def batch():
    ids = torch.tensor([[1, 39, 39, 39, 39, 5, 6]])
    return {"input_ids": ids, "pixel_values": torch.rand(1, 3, 8, 8), "labels": ids.masked_fill(ids == 39, -100)}


def broken():
    return Example(get_peft_model(llava(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"])), batch())


def fixed():
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], exclude_modules=r".*vision_tower.*layers\.2\..*")
    return Example(get_peft_model(llava(), lora), batch())
