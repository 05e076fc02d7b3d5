"""Latent attention in its absorbed form: the up-projection is folded into the query through its raw weight."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*kv_b_proj"
DEAD = 2
VERIFIED = True

HEADS, HEAD_DIM, RANK = 2, 4, 6


class LatentAttention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.q_proj = nn.Linear(dim, HEADS * HEAD_DIM, bias=False)
        self.kv_a_proj = nn.Linear(dim, RANK, bias=False)
        self.kv_b_proj = nn.Linear(RANK, HEADS * HEAD_DIM, bias=False)
        self.o_proj = nn.Linear(HEADS * RANK, dim, bias=False)

    def scores(self, query, latent):
        absorbed = torch.einsum("bthd,hdr->bthr", query, self.kv_b_proj.weight.view(HEADS, HEAD_DIM, RANK))  # <- cause
        return torch.einsum("bthr,bsr->bhts", absorbed, latent)

    def forward(self, x):
        query = self.q_proj(x).unflatten(-1, (HEADS, HEAD_DIM))
        latent = self.kv_a_proj(x)
        mixed = torch.einsum("bhts,bsr->bthr", self.scores(query, latent).softmax(-1), latent)
        return {"loss": (x + self.o_proj(mixed.flatten(2))).pow(2).mean()}


class PlainLatentAttention(LatentAttention):
    def scores(self, query, latent):
        keys = self.kv_b_proj(latent).unflatten(-1, (HEADS, HEAD_DIM))
        return torch.einsum("bthd,bshd->bhts", query, keys)


def build(attention):
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules=["q_proj", "kv_a_proj", "kv_b_proj", "o_proj"])
    return get_peft_model(attention(10), lora)


def broken():
    return Example(build(LatentAttention), {"x": torch.randn(1, 4, 10)})


def fixed():
    return Example(build(PlainLatentAttention), {"x": torch.randn(1, 4, 10)})
