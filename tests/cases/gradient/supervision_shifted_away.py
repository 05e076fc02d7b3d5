"""Only the first token of a sample is labelled, and the loss shifts the labels by one: the batch has labels, the loss has none."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI313", "no-supervised-token"
LAYERS = r".*(q_proj|v_proj)"
DEAD = 0
VERIFIED = True


def program(supervised):
    torch.manual_seed(0)
    shape = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**shape)), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    ids = torch.randint(32, (2, 6))
    labels = torch.full_like(ids, -100)
    labels[:, supervised] = ids[:, supervised]
    return Example(model, {"input_ids": ids, "labels": labels})


def broken():
    return program(slice(0, 1))


def fixed():
    return program(slice(4, 6))
