"""The state of the live model was saved as it stands: the adapter's name, another one than it is loaded as, is in every key."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, rewritten, saved, trained

RULE, NAME = "PI401", "adapter-keys-not-loaded"
LAYERS = r"base_model\.model\.model\.layers\.\d\.self_attn\.(q|v)_proj"
MAPPING = {"default_0.": ""}


def with_name(name, folder):
    saved(trained(get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))), folder)
    rewritten(folder, lambda key, value: (key.replace(".weight", f".{name}.weight"), value))
    return PeftModel.from_pretrained(llama(), folder), folder


def broken(folder):
    return with_name("default_0", folder)


def fixed(folder):
    return with_name("default", folder)
