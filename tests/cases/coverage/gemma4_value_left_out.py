"""Gemma 4: global layers use their keys as values, so v_proj is missing in part of the layers."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

from peft_inspect.rules import Example

RULE = "PI102"


def gemma4():
    torch.manual_seed(0)
    return Gemma4ForCausalLM(
        Gemma4TextConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=1,
            num_global_key_value_heads=1,
            head_dim=8,
            global_head_dim=8,
            hidden_size_per_layer_input=0,
            vocab_size_per_layer_input=64,
            num_kv_shared_layers=0,
            attention_k_eq_v=True,
            layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        )
    )


def broken():
    return Example(get_peft_model(gemma4(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"])))


def fixed():
    return Example(get_peft_model(gemma4(), LoraConfig(r=4, target_modules=["q_proj", "k_proj", "o_proj"])))
