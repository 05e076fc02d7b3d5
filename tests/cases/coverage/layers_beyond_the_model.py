"""layers_to_transform from the config of a deeper model."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE = "PI108"


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
    return Example(get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=[1, 28, 29])))


def fixed():
    return Example(get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=[1])))
