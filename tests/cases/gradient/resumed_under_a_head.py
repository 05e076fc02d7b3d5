"""A speech model is resumed for a second round: the head trains on, the reloaded adapter does not."""

import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import BertConfig, BertModel

from peft_inspect.rules import Example

RULE, NAME = "PI301", "loaded-for-inference"
LAYERS = r"encoder\..*(query|key)"
DEAD = 8
VERIFIED = True


def bert():
    torch.manual_seed(0)
    return BertModel(
        BertConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=16
        ),
        add_pooling_layer=False,
    )


class Ranker(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.score = nn.Linear(16, 1)

    def forward(self, input_ids, target):
        cls = self.encoder(input_ids).last_hidden_state[:, 0]
        return {"loss": nn.functional.mse_loss(self.score(cls).squeeze(-1), target)}


def resume(checkpoint, trainable):
    return Ranker(PeftModel.from_pretrained(bert(), checkpoint, is_trainable=trainable))


def program(trainable):
    with tempfile.TemporaryDirectory() as checkpoint:
        get_peft_model(bert(), LoraConfig(target_modules=["query", "key"])).save_pretrained(checkpoint)
        model = resume(checkpoint, trainable).train()
    return Example(model, {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]]), "target": torch.tensor([0.0, 1.0])})


def broken():
    return program(trainable=False)


def fixed():
    return program(trainable=True)
