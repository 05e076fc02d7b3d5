"""The layer norms of the base are unfrozen after the wrapping, and the LoRA config knows nothing of it."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI316", "trainable-base-weight"
LAYERS = None
DEAD = 0


def llama():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    return get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))


def batch():
    ids = torch.tensor([[1, 2, 3]])
    return {"input_ids": ids, "labels": ids}


def broken():
    model = llama()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.requires_grad = True
    return Example(model, batch())


def fixed():
    return Example(llama(), batch())
