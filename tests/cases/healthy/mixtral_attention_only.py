"""Mixtral with LoRA on attention: routing by top-k is none of the adapters' business."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import MixtralConfig, MixtralForCausalLM

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        output_router_logits=True,
    )
    model = get_peft_model(MixtralForCausalLM(config), LoraConfig(r=2, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]))
    ids = torch.tensor([[1, 9, 17, 25]])
    return Example(model, {"input_ids": ids, "labels": ids})
