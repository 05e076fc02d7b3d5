"""The prompt is longer than max_length, so the completion, the only supervised part, is truncated away."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI313", "no-supervised-token"
LAYERS = None
DEAD = 0


def collate(prompt, completion, max_length):
    ids = (prompt + completion)[:max_length]
    labels = ([-100] * len(prompt) + completion)[:max_length]
    return {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}


def student():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    return get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))


def broken():
    return Example(student(), collate(prompt=[1, 2, 3, 4, 5, 6, 7, 8], completion=[9, 10], max_length=8))


def fixed():
    return Example(student(), collate(prompt=[1, 2, 3, 4, 5, 6, 7, 8], completion=[9, 10], max_length=16))
