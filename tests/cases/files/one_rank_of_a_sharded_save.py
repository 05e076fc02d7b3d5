"""One rank of two wrote what it holds of a training that was sharded along dimension 0."""

from peft import LoraConfig, get_peft_model
from tiny import llama, rewritten, saved, trained

RULE, NAME = "PI403", "adapter-shape-mismatch"
LAYERS = r"base_model\.model\.model\.layers\.\d\.self_attn\.(q|v)_proj"
FIX = "gathered from all 2 ranks"


def adapted():
    return get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))


def broken(folder):
    rewritten(saved(trained(adapted()), folder), lambda key, value: (key, value.chunk(2)[0].clone()))
    return adapted(), folder


def fixed(folder):
    model = trained(adapted())
    return model, saved(model, folder)
