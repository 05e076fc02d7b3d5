"""A resumed PeftModel is wrapped again for the next stage."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE = "PI116"


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
    model = get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    return Example(get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"])))


def fixed():
    model = get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    model.add_adapter("stage_two", LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    model.set_adapter("stage_two")
    return Example(model)
