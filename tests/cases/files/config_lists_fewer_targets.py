"""adapter_config.json was edited by hand and lists q_proj only: the v_proj weights are dropped without a word."""

import json
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, saved, trained

RULE, NAME = "PI401", "adapter-keys-not-loaded"
LAYERS = r"base_model\.model\.model\.layers\.\d\.self_attn\.v_proj"
FIX = "'v_proj'"


def reload(targets, folder):
    saved(trained(get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))), folder)
    file = Path(folder, "adapter_config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "target_modules": targets}))
    return PeftModel.from_pretrained(llama(), folder), folder


def broken(folder):
    return reload(["q_proj"], folder)


def fixed(folder):
    return reload(["q_proj", "v_proj"], folder)
