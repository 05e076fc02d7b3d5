"""A loop that freezes the backbone runs after get_peft_model, and freezes the LoRA weights with it."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaModel

from peft_inspect.rules import Example

RULE, NAME = "PI302", "frozen-after-wrapping"
LAYERS = r"llm\..*"
DEAD = 8
VERIFIED = True


class RewardModel(nn.Module):
    def __init__(self, freeze):
        super().__init__()
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
        )
        self.llm = get_peft_model(LlamaModel(config), LoraConfig(target_modules=["q_proj", "v_proj"]))
        freeze(self.llm)
        self.v_head = nn.Linear(16, 1, bias=False)

    def forward(self, input_ids, reward):
        last = self.llm(input_ids=input_ids).last_hidden_state[:, -1]
        return {"loss": nn.functional.mse_loss(self.v_head(last).squeeze(-1), reward)}


def freeze_everything(module):
    for param in module.parameters():
        param.requires_grad = False


def freeze_base_only(module):
    for name, param in module.named_parameters():
        if "lora_" not in name:
            param.requires_grad = False


def example(freeze):
    return Example(RewardModel(freeze), {"input_ids": torch.tensor([[1, 2, 3]]), "reward": torch.tensor([0.5])})


def broken():
    return example(freeze_everything)


def fixed():
    return example(freeze_base_only)
