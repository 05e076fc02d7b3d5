"""Reentrant checkpointing enabled before get_peft_model: PEFT itself makes the inputs require grad."""

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import MistralConfig, MistralForCausalLM

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    base = MistralForCausalLM(
        MistralConfig(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
        )
    )
    base = prepare_model_for_kbit_training(base, gradient_checkpointing_kwargs={"use_reentrant": True})
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")).train()
    ids = torch.tensor([[1, 2, 3, 4]])
    return Example(model, {"input_ids": ids, "labels": ids})
