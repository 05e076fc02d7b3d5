"""Stock Jamba: its mamba mixers take `dt_proj.weight` past the LoRA layer, its attention layers are fine."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import JambaConfig, JambaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*mamba\.dt_proj"
SOURCE_ENDS = "modeling_jamba.py"
DEAD = 2
VERIFIED = True


def jamba(**options):
    torch.manual_seed(0)
    config = JambaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=8,
        expert_layer_offset=5,
        num_experts=2,
        num_experts_per_tok=1,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
        pad_token_id=0,
    )
    return get_peft_model(JambaForCausalLM(config), LoraConfig(r=2, **options))


def batch():
    ids = torch.tensor([[1, 2, 3, 4]])
    return {"input_ids": ids, "labels": ids}


def broken():
    return Example(jamba(target_modules=["q_proj", "v_proj", "in_proj", "dt_proj"]), batch())


def fixed():
    return Example(jamba(target_modules=["q_proj", "v_proj", "in_proj"]), batch())
