"""Attention and feed-forward names on Jamba: every block carries an adapter, and no mamba mixer does."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import JambaConfig, JambaForCausalLM

from peft_inspect.rules import Example

RULE = "PI104"
MODULES = r".*\.layers\.[02]\.mamba\.(in_proj|x_proj|dt_proj|out_proj)"
NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def jamba():
    torch.manual_seed(0)
    return JambaForCausalLM(
        JambaConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=2,
            attn_layer_period=2,
            attn_layer_offset=1,
            num_experts=1,
            num_experts_per_tok=1,
            mamba_d_state=4,
            mamba_dt_rank=2,
            pad_token_id=0,
        )
    )


def broken():
    return Example(get_peft_model(jamba(), LoraConfig(r=4, target_modules=NAMES)))


def fixed():
    return Example(get_peft_model(jamba(), LoraConfig(r=4, target_modules=[*NAMES, "in_proj", "out_proj"])))
