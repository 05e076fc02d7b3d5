"""The LoraConfig is read back from a saved adapter_config.json, inference_mode included."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import MistralConfig, MistralForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI301", "loaded-for-inference"
LAYERS = r".*self_attn\.(q|v)_proj"
DEAD = 8
VERIFIED = True

ADAPTER_CONFIG = {
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "target_modules": ["q_proj", "v_proj"],
    "task_type": "CAUSAL_LM",
    "inference_mode": True,
}


def mistral():
    torch.manual_seed(0)
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
        )
    )


def broken():
    model = get_peft_model(mistral(), LoraConfig(**ADAPTER_CONFIG))
    return Example(model, {"input_ids": torch.tensor([[1, 2, 3]]), "labels": torch.tensor([[1, 2, 3]])})


def fixed():
    model = get_peft_model(mistral(), LoraConfig(**{**ADAPTER_CONFIG, "inference_mode": False}))
    return Example(model, {"input_ids": torch.tensor([[1, 2, 3]]), "labels": torch.tensor([[1, 2, 3]])})
