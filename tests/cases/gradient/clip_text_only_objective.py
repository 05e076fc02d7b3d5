"""LoRA on both towers of CLIP and a text-text objective: the vision output is computed and dropped."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import CLIPConfig, CLIPModel

from peft_inspect.rules import Example

RULE, NAME = "PI308", "output-unused"
LAYERS = r".*vision_model\..*"
DEAD = 8


def clip():
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            "vocab_size": 40,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 12,
            "eos_token_id": 39,
            "bos_token_id": 38,
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
    return get_peft_model(CLIPModel(config), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))


def captions_against_paraphrases(model, batch):
    text = model(**batch).text_embeds
    return torch.nn.functional.cross_entropy(text[:2] @ text[2:].t(), torch.arange(2))


def captions_against_images(model, batch):
    outputs = model(**batch)
    return torch.nn.functional.cross_entropy(outputs.text_embeds[:2] @ outputs.image_embeds.t(), torch.arange(2))


def batch():
    ids = torch.tensor([[38, 5, 39], [38, 6, 39], [38, 7, 39], [38, 8, 39]])
    return {"input_ids": ids, "pixel_values": torch.rand(2, 3, 8, 8)}


def broken():
    return Example(clip(), batch(), captions_against_paraphrases)


def fixed():
    return Example(clip(), batch(), captions_against_images)
