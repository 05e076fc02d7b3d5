"""A rank_pattern key copied from named_modules() of the wrapped model: rank 4 everywhere, instead of 16 in one layer."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE = "PI107"


def llama(**fields):
    torch.manual_seed(0)
    shape = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**{**shape, **fields}))


def broken():
    pattern = {"base_model.model.model.layers.0.self_attn.q_proj": 16}
    return Example(get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], rank_pattern=pattern)))


def fixed():
    return Example(get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], rank_pattern={"q_proj": 16})))
