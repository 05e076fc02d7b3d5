"""Phi-3 fuses its projections: of the seven usual names, two exist."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import Phi3Config, Phi3ForCausalLM

from peft_inspect.rules import Example

RULE = "PI101"
ENTRIES = {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}
MODULES = r".*\.layers\.\d+\.(self_attn\.qkv_proj|mlp\.gate_up_proj)"


def phi3():
    torch.manual_seed(0)
    return Phi3ForCausalLM(
        Phi3Config(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
        )
    )


def broken():
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return Example(get_peft_model(phi3(), LoraConfig(r=4, target_modules=names)))


def fixed():
    names = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    return Example(get_peft_model(phi3(), LoraConfig(r=4, target_modules=names)))
