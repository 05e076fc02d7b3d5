"""`element 0 of tensors does not require grad` was silenced by making the loss a new leaf."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI307", "loss-without-graph"
LAYERS = r".*self_attn\.(q|v)_proj"
DEAD = 8


def compute_loss(model, batch):
    outputs = model(**batch)
    loss = outputs.loss
    return torch.tensor(loss.item(), requires_grad=True)  # <- cause


def compute_loss_with_graph(model, batch):
    return model(**batch).loss


def model():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    return get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))


def batch():
    return {"input_ids": torch.tensor([[3, 1, 4, 1, 5]]), "labels": torch.tensor([[3, 1, 4, 1, 5]])}


def broken():
    return Example(model(), batch(), compute_loss)


def fixed():
    return Example(model(), batch(), compute_loss_with_graph)
