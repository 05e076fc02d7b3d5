"""modules_to_save=["classifier"] on a model whose head is called score: the random head stays frozen."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForSequenceClassification

from peft_inspect.rules import Example

RULE = "PI110"
MODULES = r".*\.score"


def classifier():
    torch.manual_seed(0)
    return LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_labels=3,
            pad_token_id=0,
        )
    )


def broken():
    return Example(get_peft_model(classifier(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])))


def fixed():
    return Example(get_peft_model(classifier(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="SEQ_CLS")))
