"""The file has the names that kohya-ss's scripts write: underscores for dots, lora_down and lora_up for lora_A and lora_B."""

from peft import LoraConfig, get_peft_model
from tiny import llama, rewritten, saved, trained

RULE, NAME = "PI401", "adapter-keys-not-loaded"
LAYERS = r"base_model\.model\.model\.layers\.\d\.self_attn\.(q|v)_proj"
FIX = "convert the file to PEFT's format"


def adapted():
    return get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))


def flattened(key, value):
    path, factor, _ = key.removeprefix("base_model.model.").rsplit(".", 2)
    return f"lora_te_{path.replace('.', '_')}.{'lora_down' if factor == 'lora_A' else 'lora_up'}.weight", value


def broken(folder):
    rewritten(saved(trained(adapted()), folder), flattened)
    return adapted(), folder


def fixed(folder):
    model = trained(adapted())
    return model, saved(model, folder)
