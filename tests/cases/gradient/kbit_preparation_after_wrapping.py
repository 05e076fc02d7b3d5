"""prepare_model_for_kbit_training runs after get_peft_model and freezes what it finds, the adapter too."""

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from transformers import LlamaConfig, LlamaModel

from peft_inspect.rules import Example

RULE, NAME = "PI302", "frozen-after-wrapping"
LAYERS = r"llm\..*"
DEAD = 8
VERIFIED = True


class Classifier(nn.Module):
    def __init__(self, late):
        super().__init__()
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
        )
        lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
        base = LlamaModel(config)
        if late:
            self.llm = prepare_model_for_kbit_training(get_peft_model(base, lora), use_gradient_checkpointing=False)
        else:
            self.llm = get_peft_model(prepare_model_for_kbit_training(base, use_gradient_checkpointing=False), lora)
        self.score = nn.Linear(16, 2)

    def forward(self, input_ids, labels):
        return {"loss": nn.functional.cross_entropy(self.score(self.llm(input_ids=input_ids).last_hidden_state[:, -1]), labels)}


def broken():
    return Example(Classifier(late=True), {"input_ids": torch.tensor([[1, 2, 3]]), "labels": torch.tensor([1])})


def fixed():
    return Example(Classifier(late=False), {"input_ids": torch.tensor([[1, 2, 3]]), "labels": torch.tensor([1])})
