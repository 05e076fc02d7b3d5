"""Losses are gathered by name, averaged as fresh tensors, and given requires_grad back so that backward runs."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import BartConfig, BartForConditionalGeneration

from peft_inspect.rules import Example

RULE, NAME = "PI307", "loss-without-graph"
LAYERS = r".*_attn\.[qv]_proj"
DEAD = 12


def model_and_batch():
    torch.manual_seed(0)
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    bart = BartForConditionalGeneration(BartConfig(vocab_size=40, max_position_embeddings=32, **heads, **sizes))
    ids = torch.randint(3, 40, (2, 6))
    return get_peft_model(bart, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])), {"input_ids": ids, "labels": ids}


def average(model, batch):
    terms = {"ce": model(**batch).loss}
    total = sum(terms.values())
    return total.clone().detach().requires_grad_(True)  # <- cause


def broken():
    model, batch = model_and_batch()
    return Example(model, batch, loss=average)


def fixed():
    model, batch = model_and_batch()
    return Example(model, batch, loss=lambda model, batch: sum({"ce": model(**batch).loss}.values()))
