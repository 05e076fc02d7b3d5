"""all-linear on GraniteMoE reaches attention alone: router and experts are parameters."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import GraniteMoeConfig, GraniteMoeForCausalLM

from peft_inspect.rules import Example

RULE = "PI105"
MODULES = r".*\.block_sparse_moe\.experts"


def granite_moe():
    torch.manual_seed(0)
    return GraniteMoeForCausalLM(
        GraniteMoeConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=4,
            num_experts_per_tok=2,
        )
    )


def broken():
    return Example(get_peft_model(granite_moe(), LoraConfig(r=4, target_modules="all-linear")))


def fixed():
    config = LoraConfig(
        r=4,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        target_parameters=["block_sparse_moe.experts.gate_up_proj", "block_sparse_moe.experts.down_proj"],
    )
    return Example(get_peft_model(granite_moe(), config))
