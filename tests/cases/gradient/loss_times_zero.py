"""The curriculum weight of the only loss term is still zero at step zero."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI310", "zero-gradient"
LAYERS = r".*self_attn\.(q|v)_proj"
DEAD = 0


def curriculum(step):
    def loss(model, batch):
        return model(**batch).loss * min(1.0, step / 100)

    return loss


def example(step):
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    ids = torch.tensor([[1, 2, 3]])
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    return Example(model, {"input_ids": ids, "labels": ids}, curriculum(step))


def broken():
    return example(step=0)


def fixed():
    return example(step=1)
