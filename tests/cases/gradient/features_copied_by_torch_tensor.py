"""torch.tensor() on a tensor copies its numbers, with a warning that nobody read."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r"encoder\..*"
DEAD = 8


class Matcher(nn.Module):
    def __init__(self, copied):
        super().__init__()
        torch.manual_seed(0)
        config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
        self.encoder = get_peft_model(BertModel(config, add_pooling_layer=False), LoraConfig(r=2, target_modules=["query", "value"]))
        self.head = nn.Linear(16, 2)
        self.copied = copied

    def forward(self, input_ids, labels):
        rows = [self.encoder(ids[None]).last_hidden_state[0, 0] for ids in input_ids]
        features = torch.stack([torch.tensor(row) for row in rows] if self.copied else rows)  # <- cause
        return {"loss": F.cross_entropy(self.head(features), labels)}


def program(copied):
    return Example(Matcher(copied), {"input_ids": torch.randint(30, (2, 5)), "labels": torch.tensor([0, 1])})


def broken():
    return program(True)


def fixed():
    return program(False)
