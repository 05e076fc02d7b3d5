"""Micro-batches are averaged as Python numbers, and the mean is made a tensor that backward() accepts."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from peft_inspect.rules import Example

RULE, NAME = "PI307", "loss-without-graph"
LAYERS = r".*c_attn"
DEAD = 4


def accumulated(model, batch):
    total = 0.0
    for ids in batch["input_ids"].split(1):
        total += model(input_ids=ids, labels=ids).loss.item()
    return torch.tensor(total / len(batch["input_ids"]), requires_grad=True)  # <- cause


def summed(model, batch):
    losses = [model(input_ids=ids, labels=ids).loss for ids in batch["input_ids"].split(1)]
    return torch.stack(losses).mean()


def program(loss):
    torch.manual_seed(0)
    base = GPT2LMHeadModel(GPT2Config(vocab_size=30, n_positions=16, n_embd=8, n_layer=2, n_head=2))
    return Example(get_peft_model(base, LoraConfig(r=2, target_modules=["c_attn"])), {"input_ids": torch.randint(30, (3, 5))}, loss)


def broken():
    return program(accumulated)


def fixed():
    return program(summed)
