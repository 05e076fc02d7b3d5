"""Trained on three blocks, loaded onto two."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, saved, trained

RULE, NAME = "PI405", "base-model-mismatch"
LAYERS = None


def load(blocks, folder):
    saved(trained(get_peft_model(llama(num_hidden_layers=3), LoraConfig(target_modules=["q_proj"]))), folder)
    return PeftModel.from_pretrained(llama(num_hidden_layers=blocks), folder), folder


def broken(folder):
    return load(2, folder)


def fixed(folder):
    return load(3, folder)
