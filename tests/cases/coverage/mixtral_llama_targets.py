"""The target list of Llama, copied to Mixtral: gate_proj, up_proj and down_proj are no modules there."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import MixtralConfig, MixtralForCausalLM

from peft_inspect.rules import Example

RULE = "PI101"
ENTRIES = {"gate_proj", "up_proj", "down_proj"}


def mixtral():
    torch.manual_seed(0)
    return MixtralForCausalLM(
        MixtralConfig(
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


ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def broken():
    config = LoraConfig(r=4, target_modules=[*ATTENTION, "gate_proj", "up_proj", "down_proj"])
    return Example(get_peft_model(mixtral(), config))


def fixed():
    config = LoraConfig(r=4, target_modules=ATTENTION, target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])
    return Example(get_peft_model(mixtral(), config))
