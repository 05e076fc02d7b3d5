"""An adapter in use that changes nothing: it was saved from a run in which no step reached it."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, saved, trained

RULE, NAME = "PI407", "untrained-adapter"
LAYERS = r"base_model\.model\.model\.layers\.\d\.self_attn\.(q|v)_proj"
SEVERITY = "warning"


def broken(folder):
    saved(get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "v_proj"])), folder)
    return PeftModel.from_pretrained(llama(), folder), None


def fixed(folder):
    saved(trained(get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))), folder)
    return PeftModel.from_pretrained(llama(), folder), None
