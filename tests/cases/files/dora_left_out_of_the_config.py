"""Trained with DoRA, and adapter_config.json was rewritten by a tool that does not know it: the magnitudes find no place."""

import json
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, saved, trained

RULE, NAME = "PI401", "adapter-keys-not-loaded"
LAYERS = r"base_model\.model\.model\.layers\.\d\.self_attn\.(q|v)_proj"
FIX = "set use_dora=True in adapter_config.json"


def reload(folder, **fields):
    saved(trained(get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "v_proj"], use_dora=True))), folder)
    file = Path(folder, "adapter_config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return PeftModel.from_pretrained(llama(), folder), folder


def broken(folder):
    return reload(folder, use_dora=False)


def fixed(folder):
    return reload(folder)
