"""An adapter of a small model, checked against a larger one of the same family: one fault, whatever all does not fit."""

from peft import LoraConfig, get_peft_model
from tiny import llama, saved, trained

RULE, NAME = "PI405", "base-model-mismatch"
LAYERS = r"base_model\.model\.model\.layers\.[01]\.self_attn\.(q|v)_proj"


def adapted(**shape):
    return get_peft_model(llama(**shape), LoraConfig(target_modules=["q_proj", "v_proj"]))


def broken(folder):
    return adapted(num_hidden_layers=4, hidden_size=32), saved(trained(adapted()), folder)


def fixed(folder):
    model = trained(adapted(num_hidden_layers=4, hidden_size=32))
    return model, saved(model, folder)
