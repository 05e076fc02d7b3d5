"""Reentrant checkpointing with enable_input_require_grads(): looks dangerous in the config, and works."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    base.enable_input_require_grads()
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])).train()
    ids = torch.tensor([[1, 2, 3, 4]])
    return Example(model, {"input_ids": ids, "labels": ids})
