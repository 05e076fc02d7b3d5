"""The notebook cell that wraps the base model ran again with other targets: the old layers stay in."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE = "PI114"
MODULES = r".*\.(q_proj|v_proj)"


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
    base = llama()
    get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    return Example(get_peft_model(base, LoraConfig(r=8, target_modules=["k_proj", "o_proj"])))


def fixed():
    base = llama()
    base = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"])).unload()
    return Example(get_peft_model(base, LoraConfig(r=8, target_modules=["k_proj", "o_proj"])))
