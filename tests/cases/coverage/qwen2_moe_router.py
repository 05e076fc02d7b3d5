"""all-linear on Qwen2-MoE: the gate of the shared expert is a linear layer like any other, and the experts are none."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from peft_inspect.rules import Example

RULE = "PI106"
ALSO = ("PI105",)
MODULES = r".*\.mlp\.shared_expert_gate"


def qwen2_moe():
    torch.manual_seed(0)
    return Qwen2MoeForCausalLM(
        Qwen2MoeConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_experts=4,
            num_experts_per_tok=2,
            decoder_sparse_step=1,
        )
    )


def broken():
    return Example(get_peft_model(qwen2_moe(), LoraConfig(r=4, target_modules="all-linear")))


def fixed():
    config = LoraConfig(
        r=4,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    )
    return Example(get_peft_model(qwen2_moe(), config))
