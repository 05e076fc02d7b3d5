"""add_adapter("task_b") without set_adapter: the training of task B goes on in task A's weights."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification

from peft_inspect.rules import Example

RULE, NAME = "PI207", "adapter-not-active"
LAYERS = r".*attention\.self\.(query|value)"
DEAD = 8
FIXED_DEAD = 8  # task_a, frozen and inactive from here on
VERIFIED = True


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=16
    )
    return BertForSequenceClassification(config)


def two_tasks():
    model = get_peft_model(bert(), LoraConfig(r=2, target_modules=["query", "value"]), adapter_name="task_a")
    model.add_adapter("task_b", LoraConfig(r=2, target_modules=["query", "value"]))
    return model


batch = {"input_ids": torch.tensor([[1, 5, 9, 2]]), "labels": torch.tensor([1])}


def broken():
    return Example(two_tasks(), batch)


def fixed():
    model = two_tasks()
    model.set_adapter("task_b")
    return Example(model, batch)
