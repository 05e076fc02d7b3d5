"""Features leave torch for a NumPy whitening step and come back without their graph."""

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig, BertModel

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r"bert\..*"
DEAD = 8


def whiten(features):
    array = features.detach().cpu().numpy()  # <- cause
    array = (array - array.mean(0)) / (array.std(0) + 1e-5)
    return torch.from_numpy(array.astype(np.float32))


def whiten_in_torch(features):
    return (features - features.mean(0)) / (features.std(0) + 1e-5)


class Embedder(nn.Module):
    def __init__(self, normalise):
        super().__init__()
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, max_position_embeddings=12
        )
        self.bert = get_peft_model(BertModel(config, add_pooling_layer=False), LoraConfig(r=2, target_modules=["query", "value"]))
        self.normalise = normalise
        self.head = nn.Linear(16, 2)

    def forward(self, input_ids, labels):
        pooled = self.bert(input_ids=input_ids).last_hidden_state.mean(1)
        return {"loss": nn.functional.cross_entropy(self.head(self.normalise(pooled)), labels)}


def batch():
    return {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), "labels": torch.tensor([0, 1, 1])}


def broken():
    return Example(Embedder(whiten), batch())


def fixed():
    return Example(Embedder(whiten_in_torch), batch())
