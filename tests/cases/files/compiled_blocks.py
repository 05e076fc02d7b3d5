"""The blocks were compiled one by one during the training: `_orig_mod` sits in the middle of every key."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, rewritten, saved, trained

RULE, NAME = "PI401", "adapter-keys-not-loaded"
LAYERS = r"base_model\.model\.model\.layers\.\d\.self_attn\.o_proj"
MAPPING = {"_orig_mod.": ""}


def broken(folder):
    saved(trained(get_peft_model(llama(), LoraConfig(target_modules=["o_proj"]))), folder)
    rewritten(folder, lambda key, value: (key.replace(".self_attn.", "._orig_mod.self_attn."), value))
    return PeftModel.from_pretrained(llama(), folder), folder


def fixed(folder):
    saved(trained(get_peft_model(llama(), LoraConfig(target_modules=["o_proj"]))), folder)
    return PeftModel.from_pretrained(llama(), folder), folder
