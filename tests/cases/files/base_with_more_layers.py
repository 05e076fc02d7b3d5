"""Trained on two blocks, loaded onto a base of four that is called otherwise: the first two fit."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, saved, trained

RULE, NAME = "PI405", "base-model-mismatch"
LAYERS = None


def load(blocks, folder):
    small = llama()
    small.name_or_path = "somebody/two-blocks"
    saved(trained(get_peft_model(small, LoraConfig(target_modules=["q_proj"]))), folder)
    base = llama(num_hidden_layers=blocks)
    base.config._name_or_path = "/data/bases/four-blocks" if blocks > 2 else "somebody/two-blocks"
    return PeftModel.from_pretrained(base, folder), folder


def broken(folder):
    return load(4, folder)


def fixed(folder):
    return load(2, folder)
