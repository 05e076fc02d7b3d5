"""An inference optimiser replaces the forward of the LoRA layers by that of their base layers, and stays on for training."""

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI202", "base-layer-called-directly"
LAYERS = r".*self_attn\.(q|v)_proj"
DEAD = 8
VERIFIED = None


def optimise_for_inference(model):
    for module in model.modules():
        if isinstance(module, LoraLayer):
            base = module.base_layer
            module.forward = lambda x, *args, base=base, **kwargs: base(x)  # <- cause
    return model


def lora_model():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    return get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))


def batch():
    ids = torch.tensor([[1, 2, 3]])
    return {"input_ids": ids, "labels": ids}


def broken():
    return Example(optimise_for_inference(lora_model()), batch())


def fixed():
    return Example(lora_model(), batch())
