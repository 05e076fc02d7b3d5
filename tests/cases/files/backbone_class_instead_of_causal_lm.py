"""Trained on AutoModel, served on the class with the language model head: every path is one level deeper."""

from peft import LoraConfig, PeftModel, get_peft_model
from tiny import llama, saved, trained
from transformers import LlamaModel

RULE, NAME = "PI401", "adapter-keys-not-loaded"
LAYERS = r"base_model\.model\.model\.layers\.\d\.mlp\.(up|down)_proj"
MAPPING = {"base_model.model.": "base_model.model.model."}


def config():
    return LoraConfig(target_modules=["up_proj", "down_proj"])


def broken(folder):
    saved(trained(get_peft_model(llama(LlamaModel), config())), folder)
    return PeftModel.from_pretrained(llama(), folder), folder


def fixed(folder):
    saved(trained(get_peft_model(llama(LlamaModel), config())), folder)
    return PeftModel.from_pretrained(llama(LlamaModel), folder), folder
