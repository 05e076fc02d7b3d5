"""Trained with another rank for v_proj, loaded with a config that lost its rank_pattern: the tensors of v_proj do not fit."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, saved, trained

RULE, NAME = "PI403", "adapter-shape-mismatch"
LAYERS = r"base_model\.model\.model\.layers\.\d\.self_attn\.v_proj"
FIX = "build the adapter with the rank of the file (rank_pattern={'v_proj': 2})"


def config(**fields):
    return LoraConfig(r=8, target_modules=["q_proj", "v_proj"], **fields)


def reload(folder, **fields):
    saved(trained(get_peft_model(llama(), config(rank_pattern={"v_proj": 2}))), folder)
    return PeftModel.from_pretrained(llama(), folder, config=config(**fields), is_trainable=True, ignore_mismatched_sizes=True), folder


def broken(folder):
    return reload(folder)


def fixed(folder):
    return reload(folder, rank_pattern={"v_proj": 2})
