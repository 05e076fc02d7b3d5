"""The optimizer is created from model.parameters() before get_peft_model and holds only frozen base weights."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI317", "parameter-not-in-optimizer"
LAYERS = r".*self_attn\.(q|v)_proj"
DEAD = 0


def base():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )


def batch():
    return {"input_ids": torch.tensor([[3, 1, 4]]), "labels": torch.tensor([[3, 1, 4]])}


def broken():
    model = base()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    model = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    return Example(model, batch(), optimizer=optimizer)


def fixed():
    model = get_peft_model(base(), LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-4)
    return Example(model, batch(), optimizer=optimizer)
