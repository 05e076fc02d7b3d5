"""The last two of twelve layers on purpose, against indices that drop every module an entry names."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE = "PI101"
ENTRIES = {"v_proj"}


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
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], exclude_modules=["v_proj"])
    return Example(get_peft_model(llama(num_hidden_layers=12), config))


def fixed():
    config = LoraConfig(r=4, target_modules=r"model\.layers\.(10|11)\.self_attn\.(q_proj|v_proj)")
    return Example(get_peft_model(llama(num_hidden_layers=12), config))
