"""A model handed over in eval mode, as after a validation loop: gradients flow all the same."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForTokenClassification

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=12
    )
    lora = LoraConfig(r=2, target_modules=["query", "key", "value", "dense"], task_type="TOKEN_CLS", lora_dropout=0.1)
    model = get_peft_model(BertForTokenClassification(config), lora).eval()
    return Example(model, {"input_ids": torch.tensor([[1, 2, 3, 4]]), "labels": torch.tensor([[0, 1, -100, 1]])})
