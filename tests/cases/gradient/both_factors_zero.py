"""A re-initialisation helper zeroes every parameter with `lora_` in its name: both factors, which never leave zero."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification

from peft_inspect.rules import Example

RULE, NAME = "PI312", "dead-initialisation"
LAYERS = r".*\.(query|value)"
DEAD = 0


def reset(model, factor):
    for name, parameter in model.named_parameters():
        if factor in name:
            torch.nn.init.zeros_(parameter)


def program(factor):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, max_position_embeddings=12
    )
    lora = LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS")
    model = get_peft_model(BertForSequenceClassification(config), lora)
    reset(model, factor)
    return Example(model, {"input_ids": torch.tensor([[1, 2, 3]]), "labels": torch.tensor([1])})


def broken():
    return program("lora_")


def fixed():
    return program("lora_B")
