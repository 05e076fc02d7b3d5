"""A fused norm is bound onto every norm after the wrapping, also onto those that are trained as copies: the frozen original runs."""

import types

import torch
from peft import LoraConfig, get_peft_model
from peft.utils.other import ModulesToSaveWrapper
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI202", "base-layer-called-directly"
LAYERS, MODULES = None, ("base_model.model.model.norm",)
DEAD = 0
VERIFIED = True


def fused_norm(self, hidden):
    norm = self.original_module if isinstance(self, ModulesToSaveWrapper) else self
    return F.rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)  # <- cause


def program(*, copies):
    torch.manual_seed(0)
    shape = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["model.norm"])
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**shape)), lora)
    for name, module in model.named_modules():
        inside = "original_module" in name or "modules_to_save" in name
        if name.endswith("norm") and not inside and (copies or not isinstance(module, ModulesToSaveWrapper)):
            module.forward = types.MethodType(fused_norm, module)
    ids = torch.randint(32, (2, 6))
    return Example(model, {"input_ids": ids, "labels": ids.clone()})


def broken():
    return program(copies=True)


def fixed():
    return program(copies=False)
