"""The adapters of a tuner that seeds its state in hooks around the layers are disabled by hand and never enabled again."""

import torch
from peft import ShadowConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI205", "adapters-disabled"
LAYERS = r".*layers\.\d"
DEAD = 20
FIXED_DEAD = 8  # parts of the last layer that nothing reads
VERIFIED = True


def build():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    return get_peft_model(LlamaForCausalLM(config), ShadowConfig(task_type="CAUSAL_LM")).train()


def batch():
    ids = torch.tensor([[1, 2, 3, 4]])
    return {"input_ids": ids, "labels": ids}


def broken():
    model = build()
    model.base_model.disable_adapter_layers()
    return Example(model, batch())


def fixed():
    return Example(build(), batch())
