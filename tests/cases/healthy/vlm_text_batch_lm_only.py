"""A VLM with LoRA in the language model only, trained on text: the vision tower is frozen and unused."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4, projection_dim=16
    )
    text = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    base = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_id=39))
    model = get_peft_model(base, LoraConfig(target_modules=r".*language_model.*\.(q|v)_proj"))
    ids = torch.tensor([[1, 2, 3, 4]])
    return Example(model, {"input_ids": ids, "labels": ids})
