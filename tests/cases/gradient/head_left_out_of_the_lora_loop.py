"""A loop leaves only names with lora_ trainable, and with the rest it freezes the trained copy of the head."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification

from peft_inspect.rules import Example

RULE, NAME = "PI302", "frozen-after-wrapping"
LAYERS, MODULES = None, ("base_model.model.classifier",)
DEAD = 0
VERIFIED = True


def program(trained):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    model = get_peft_model(BertForSequenceClassification(config), LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS"))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(part in name for part in trained)
    return Example(model, {"input_ids": torch.randint(30, (2, 6)), "labels": torch.tensor([0, 1])})


def broken():
    return program(["lora_"])


def fixed():
    return program(["lora_", "modules_to_save"])
