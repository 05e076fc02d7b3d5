"""A mixed dataset yields a text-only batch: the vision branch does not run, which is no fault of the adapter."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from peft_inspect.rules import Example

RULE, NAME = "PI208", "branch-not-executed"
LAYERS = r".*vision_tower\..*"
DEAD = 8


def build():
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4, projection_dim=16
    )
    text = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=39, vision_feature_layer=-1)
    return get_peft_model(LlavaForConditionalGeneration(config), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))


def broken():
    ids = torch.tensor([[1, 7, 5, 6]])
    return Example(build(), {"input_ids": ids, "labels": ids})


def fixed():
    ids = torch.tensor([[1, 39, 39, 39, 39, 5, 6]])
    return Example(build(), {"input_ids": ids, "pixel_values": torch.rand(1, 3, 8, 8), "labels": ids})
