"""The loss is computed inside the context manager that was meant for the reference pass only."""

import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from transformers import GemmaConfig, GemmaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI205", "adapters-disabled"
LAYERS = r".*_proj"
DEAD = 8
VERIFIED = True


def build(loss):
    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    model = GemmaForCausalLM(GemmaConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, **heads))
    ids = torch.randint(3, 40, (2, 6))
    return Example(
        get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])), {"input_ids": ids, "labels": ids}, loss=loss
    )


def inside(model, batch):
    with model.disable_adapter():  # <- cause
        reference = model(**batch).logits.detach()
        output = model(**batch)
    return output.loss + 0.1 * F.mse_loss(output.logits, reference + 1)


def outside(model, batch):
    with model.disable_adapter():
        reference = model(**batch).logits.detach()
    output = model(**batch)
    return output.loss + 0.1 * F.mse_loss(output.logits, reference + 1)


def broken():
    return build(inside)


def fixed():
    return build(outside)
