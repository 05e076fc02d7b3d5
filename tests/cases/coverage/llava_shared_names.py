"""q_proj and v_proj, meant for the language model, are names of the CLIP vision tower too."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from peft_inspect.rules import Example

RULE = "PI103"
MODULES = r".*\.vision_tower\..*\.(q|v)_proj"


def llava():
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4, projection_dim=16
    )
    text = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_id=63))


def broken():
    return Example(get_peft_model(llava(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"])))


def fixed():
    return Example(get_peft_model(llava(), LoraConfig(r=4, target_modules=r".*language_model.*\.(q|v)_proj")))
