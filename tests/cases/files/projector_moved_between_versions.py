"""A projector in modules_to_save: the class calls it `model.projector` now, and the file has it as `projector`."""

from peft import LoraConfig, get_peft_model
from tiny import llama, saved, trained
from torch import nn
from transformers import LlamaModel

RULE, NAME = "PI401", "adapter-keys-not-loaded"
LAYERS = r"base_model\.model\.model\.(projector|language_model\.layers\.\d\.self_attn\.(q|v)_proj)"
MAPPING = {"base_model.model.": "base_model.model.model."}


class Before(nn.Module):
    def __init__(self):
        super().__init__()
        self.language_model = llama(LlamaModel)
        self.projector = nn.Linear(8, 16)


class After(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Before()
        self.lm_head = nn.Linear(16, 64)


def adapted(model):
    return get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["projector"]))


def broken(folder):
    return adapted(After()), saved(trained(adapted(Before())), folder)


def fixed(folder):
    model = trained(adapted(After()))
    return model, saved(model, folder)
