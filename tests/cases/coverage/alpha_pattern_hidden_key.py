"""A general alpha_pattern key in front of a special one: the first that matches decides, so the second never applies."""

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
    pattern = {"q_proj": 8, r"layers\.1\.self_attn\.q_proj": 64}
    return Example(get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], alpha_pattern=pattern)))


def fixed():
    pattern = {r"layers\.1\.self_attn\.q_proj": 64, "q_proj": 8}
    return Example(get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], alpha_pattern=pattern)))
