"""Trained on `language_model.model.…`, loaded onto a class that calls it `model.language_model.…`, with no rule to rename it."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, saved, trained
from torch import nn
from transformers import LlamaModel

RULE, NAME = "PI401", "adapter-keys-not-loaded"
LAYERS = r"base_model\.model\.model\.language_model\.layers\.\d\.self_attn\.(q|v)_proj"
MAPPING = {"base_model.model.language_model.model.": "base_model.model.model.language_model."}


class Before(nn.Module):
    def __init__(self):
        super().__init__()
        self.language_model = llama()
        self.projector = nn.Linear(8, 16)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.language_model = llama(LlamaModel)
        self.projector = nn.Linear(8, 16)


class After(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Inner()
        self.lm_head = nn.Linear(16, 64)


def config():
    return LoraConfig(target_modules=["q_proj", "v_proj"])


def broken(folder):
    saved(trained(get_peft_model(Before(), config())), folder)
    return PeftModel.from_pretrained(After(), folder), folder


def fixed(folder):
    saved(trained(get_peft_model(After(), config())), folder)
    return PeftModel.from_pretrained(After(), folder), folder
