"""CLIP trained with its own contrastive loss: argmax only finds the end-of-text position."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import CLIPConfig, CLIPModel

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            "vocab_size": 40,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 12,
            "eos_token_id": 2,
            "bos_token_id": 0,
            "pad_token_id": 1,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
        },
        projection_dim=8,
    )
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "visual_projection", "text_projection"])
    model = get_peft_model(CLIPModel(config), lora)
    ids = torch.tensor([[0, 5, 39], [0, 6, 39]])
    return Example(model, {"input_ids": ids, "pixel_values": torch.rand(2, 3, 8, 8), "return_loss": True})
