"""A fresh adapter is added as the DPO reference: it is the base model, frozen, and this step does not run it."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

FIXED_DEAD = 8  # the reference's own


def healthy():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    model.add_adapter("dpo_ref", LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    ids = torch.tensor([[7, 7, 3, 1]])
    return Example(model, {"input_ids": ids, "labels": ids})
