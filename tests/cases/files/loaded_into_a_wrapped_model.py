"""get_peft_model first, then PeftModel.from_pretrained on what it returned: the trained weights land nowhere."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, saved, trained

RULE, NAME = "PI401", "adapter-keys-not-loaded"
LAYERS = r"base_model\.model\.base_model\.model\.model\.layers\.\d\.self_attn\.(q|v)_proj"
MAPPING = {"base_model.model.": "base_model.model.base_model.model."}


def config():
    return LoraConfig(target_modules=["q_proj", "v_proj"])


def broken(folder):
    saved(trained(get_peft_model(llama(), config())), folder)
    return PeftModel.from_pretrained(get_peft_model(llama(), config()), folder), folder


def fixed(folder):
    saved(trained(get_peft_model(llama(), config())), folder)
    return PeftModel.from_pretrained(llama(), folder), folder
