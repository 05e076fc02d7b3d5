"""A classification head in modules_to_save: score.original_module has no gradient by design, the copy trains."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForSequenceClassification

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_labels=3,
        pad_token_id=0,
    )
    base = LlamaForSequenceClassification(config)
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["score"], task_type="SEQ_CLS"))
    return Example(model, {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]]), "labels": torch.tensor([2, 0])})
