"""Trained with rank 8, loaded into rank 4 with ignore_mismatched_sizes=True: silently left at its initialisation."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, saved, trained

RULE, NAME = "PI403", "adapter-shape-mismatch"
LAYERS = r"base_model\.model\.model\.layers\.\d\.self_attn\.(q|v)_proj"


def config(r):
    return LoraConfig(r=r, target_modules=["q_proj", "v_proj"])


def broken(folder):
    saved(trained(get_peft_model(llama(), config(8))), folder)
    return PeftModel.from_pretrained(llama(), folder, config=config(4), is_trainable=True, ignore_mismatched_sizes=True), folder


def fixed(folder):
    saved(trained(get_peft_model(llama(), config(8))), folder)
    return PeftModel.from_pretrained(llama(), folder, is_trainable=True), folder
