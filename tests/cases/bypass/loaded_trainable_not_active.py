"""A second adapter is loaded for training beside a frozen one, and stays inactive."""

import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI207", "adapter-not-active"
LAYERS = r".*self_attn\.(q|v)_proj"
DEAD = 16
FIXED_DEAD = 8  # the first adapter stays frozen, and is no longer active
VERIFIED = True


def base():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )


def load():
    with tempfile.TemporaryDirectory() as run:
        get_peft_model(base(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).save_pretrained(run)
        model = PeftModel.from_pretrained(base(), run)
        model.load_adapter(run, "other", is_trainable=True)
    return model.train()


def batch():
    ids = torch.tensor([[1, 2, 3, 4]])
    return {"input_ids": ids, "labels": ids}


def broken():
    return Example(load(), batch())


def fixed():
    model = load()
    model.set_adapter("other")
    return Example(model, batch())
