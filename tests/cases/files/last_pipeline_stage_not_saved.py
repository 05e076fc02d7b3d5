"""Only the first pipeline stage was saved: the layers of the second stay as they were initialised."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, rewritten, saved, trained

RULE, NAME = "PI402", "adapter-weights-missing"
LAYERS = r"base_model\.model\.model\.layers\.1\.self_attn\.(q|v)_proj"


def stages(kept, folder):
    saved(trained(get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))), folder)
    rewritten(folder, lambda key, value: (key, value) if any(f".layers.{index}." in key for index in kept) else None)
    return PeftModel.from_pretrained(llama(), folder), folder


def broken(folder):
    return stages([0], folder)


def fixed(folder):
    return stages([0, 1], folder)
