"""The LoraConfig is built, and the call that would use it is commented out."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE = "PI112"


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
    LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    return Example(llama())


def fixed():
    return Example(get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"])))
