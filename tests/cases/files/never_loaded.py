"""load_state_dict(strict=False) passes over every key of the file: they lack the adapter's name, which live keys have."""

from pathlib import Path

from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from tiny import llama, saved, trained

RULE, NAME = "PI401", "adapter-keys-not-loaded"
SEVERITY = "warning"
LAYERS = r"base_model\.model\.model\.layers\.\d\.self_attn\.(q|v)_proj"
FIX = "load_state_dict(strict=False) passes over keys without the adapter's name"


def adapted():
    return get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))


def broken(folder):
    tensors = load_file(Path(saved(trained(adapted()), folder), "adapter_model.safetensors"))
    model = adapted()
    model.load_state_dict(tensors, strict=False)
    return model, folder


def fixed(folder):
    tensors = load_file(Path(saved(trained(adapted()), folder), "adapter_model.safetensors"))
    model = adapted()
    set_peft_model_state_dict(model, tensors)
    return model, folder
