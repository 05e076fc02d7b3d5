"""Saved under ZeRO-3 without gathering: the file lists every tensor, and each has size 0."""

import torch
from peft import LoraConfig, get_peft_model
from tiny import llama, rewritten, saved, trained

RULE, NAME = "PI404", "empty-adapter-file"
LAYERS = r"base_model\.model\.model\.layers\.\d\.self_attn\.(q|v)_proj"


def broken(folder):
    model = trained(get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "v_proj"])))
    rewritten(saved(model, folder), lambda key, value: (key, torch.empty(0)))
    return model, folder


def fixed(folder):
    model = trained(get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "v_proj"])))
    return model, saved(model, folder)
