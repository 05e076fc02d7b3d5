"""A closure made in __init__ captures the Linears of the pooling head before PEFT replaces them."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig, BertModel

from peft_inspect.rules import Example

RULE, NAME = "PI202", "base-layer-called-directly"
LAYERS = r".*pool_dense"
DEAD = 2
VERIFIED = True


def make_pooler(linear):
    def pool(hidden):
        return torch.tanh(linear(hidden[:, 0]))  # <- cause

    return pool


class SentenceEncoder(nn.Module):
    def __init__(self, early):
        super().__init__()
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=12
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        self.pool_dense = nn.Linear(16, 16)
        self.pool = make_pooler(self.pool_dense) if early else lambda hidden: torch.tanh(self.pool_dense(hidden[:, 0]))

    def forward(self, input_ids):
        return self.pool(self.bert(input_ids).last_hidden_state)


def pair_loss(model, batch):
    left, right = model(batch["left"]), model(batch["right"])
    return 1 - nn.functional.cosine_similarity(left, right).mean()


def example(early):
    model = get_peft_model(SentenceEncoder(early), LoraConfig(target_modules=["query", "value", "pool_dense"]))
    return Example(model, {"left": torch.tensor([[1, 2, 3]]), "right": torch.tensor([[1, 4, 3]])}, pair_loss)


def broken():
    return example(early=True)


def fixed():
    return example(early=False)
