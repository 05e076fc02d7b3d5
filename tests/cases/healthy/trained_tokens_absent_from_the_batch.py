"""A few new tokens are trained, and this batch has none of them: their gradient is zero, and nothing is wrong."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], trainable_token_indices=[30, 31])
    ids = torch.tensor([[5, 6, 7, 8]])
    return Example(get_peft_model(base, lora), {"input_ids": ids, "labels": ids})
