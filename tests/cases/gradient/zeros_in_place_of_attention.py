"""Without its kernel, the attention returns zeros of the shape of its queries: nothing it projects is used."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI308", "output-unused"
LAYERS = r".*(query|value)"
DEAD = 4
kernel = None


def attention(query, value):
    if kernel is None:
        return torch.zeros_like(query).requires_grad_()
    return kernel(query, value)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.value, self.mlp = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, hidden, attend):
        query, value = self.query(hidden), self.value(hidden)
        mixed = attend(query, value)
        bias = query.new_zeros(query.shape[:-1]).unsqueeze(-1).expand_as(value)
        return self.mlp(hidden + mixed + bias.type_as(query))


class Model(nn.Module):
    def __init__(self, attend):
        super().__init__()
        self.block = Block()
        self.attend = attend

    def forward(self, hidden, target):
        return {"loss": nn.functional.mse_loss(self.block(hidden, self.attend), target)}


def train(attend):
    torch.manual_seed(0)
    model = get_peft_model(Model(attend), LoraConfig(r=2, target_modules=["query", "value", "mlp"]))
    return Example(model, {"hidden": torch.randn(2, 3, 8), "target": torch.randn(2, 3, 8)})


def broken():
    return train(attention)


def fixed():
    return train(lambda query, value: query.softmax(dim=-1) * value)
