"""A random projector added to a pretrained model before wrapping: get_peft_model freezes it with everything else."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE = "PI113"
MODULES = r".*\.mm_projector"


def llama(**fields):
    torch.manual_seed(0)
    shape = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**{**shape, **fields}))


def with_projector():
    model = llama()
    model.model.mm_projector = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 16))
    return model


def broken():
    return Example(get_peft_model(with_projector(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"])))


def fixed():
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["mm_projector"])
    return Example(get_peft_model(with_projector(), config))
