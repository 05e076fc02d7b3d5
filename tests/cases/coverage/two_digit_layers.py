r"""\\d where \\d+ was meant: layers 10 and 11 are left out."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE = "PI102"
MODULES = r".*\.layers\.1[01]\.self_attn\.[qv]_proj"


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


def broken():
    config = LoraConfig(r=4, target_modules=r"model\.layers\.\d\.self_attn\.[qv]_proj")
    return Example(get_peft_model(llama(num_hidden_layers=12), config))


def fixed():
    config = LoraConfig(r=4, target_modules=r"model\.layers\.\d+\.self_attn\.[qv]_proj")
    return Example(get_peft_model(llama(num_hidden_layers=12), config))
