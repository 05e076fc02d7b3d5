"""Everything loads, onto the wrong model: the adapter was trained on another base of the same shape."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, saved, trained

RULE, NAME = "PI405", "base-model-mismatch"
LAYERS = None
SEVERITY = "warning"


def base(name):
    model = llama()
    model.config._name_or_path = model.name_or_path = name
    return model


def broken(folder):
    saved(trained(get_peft_model(base("lab/assistant-a"), LoraConfig(target_modules=["q_proj"]))), folder)
    return PeftModel.from_pretrained(base("lab/assistant-b"), folder), folder


def fixed(folder):
    saved(trained(get_peft_model(base("lab/assistant-a"), LoraConfig(target_modules=["q_proj"]))), folder)
    return PeftModel.from_pretrained(base("mirror/Assistant-A-bnb-4bit"), folder), folder
