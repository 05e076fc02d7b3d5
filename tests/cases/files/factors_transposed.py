"""Another tool keeps a factor as inputs by rank."""

from peft import LoraConfig, get_peft_model
from tiny import llama, rewritten, saved, trained

RULE, NAME = "PI403", "adapter-shape-mismatch"
LAYERS = r"base_model\.model\.model\.layers\.\d\.mlp\.(up|down)_proj"
FIX = "transpose each of them"


def adapted():
    return get_peft_model(llama(), LoraConfig(target_modules=["up_proj", "down_proj"]))


def broken(folder):
    rewritten(saved(trained(adapted()), folder), lambda key, value: (key, value.T.contiguous()))
    return adapted(), folder


def fixed(folder):
    model = trained(adapted())
    return model, saved(model, folder)
