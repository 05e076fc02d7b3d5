"""A batch that mixes adapters for serving names the base model for every sample, and is trained on."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI205", "adapters-disabled"
LAYERS = r".*(q_proj|v_proj)"
DEAD = 8


def program(names):
    torch.manual_seed(0)
    shape = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**shape)), LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).eval()
    ids = torch.randint(32, (2, 6))

    def loss(model, batch):
        return model(**batch, adapter_names=names).loss

    return Example(model, {"input_ids": ids, "labels": ids.clone()}, loss)


def broken():
    return program(["__base__", "__base__"])


def fixed():
    return program(["__base__", "default"])
