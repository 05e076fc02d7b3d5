"""Trainable base weights that the config asks for: lora_only biases and a few new tokens."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    base = Qwen2ForCausalLM(
        Qwen2Config(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], bias="lora_only", trainable_token_indices=[30, 31])
    ids = torch.tensor([[1, 30, 31, 4]])
    return Example(get_peft_model(base, lora), {"input_ids": ids, "labels": ids})
