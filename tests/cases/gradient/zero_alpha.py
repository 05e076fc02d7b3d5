"""lora_alpha=0 came out of a sweep that counted from zero."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI311", "zero-scaling"
LAYERS = r".*self_attn\.(q|v)_proj"
DEAD = 0


def trial(number):
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=8 * number, target_modules=["q_proj", "v_proj"]))
    ids = torch.tensor([[1, 2, 3]])
    return Example(model, {"input_ids": ids, "labels": ids})


def broken():
    return trial(0)


def fixed():
    return trial(1)
