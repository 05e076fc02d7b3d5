"""The output layer is deep-copied before the wrapping, to keep "the original" for a distillation that came later."""

import copy

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2Model

from peft_inspect.rules import Example

RULE, NAME = "PI203", "unadapted-copy-called"
LAYERS = r"lm\.base_model\.model\.readout"
DEAD = 2
VERIFIED = True


class Scorer(nn.Module):
    def __init__(self):
        super().__init__()
        self.gpt2 = GPT2Model(GPT2Config(vocab_size=30, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0))
        self.readout = nn.Linear(16, 5)

    def forward(self, input_ids):
        return self.readout(self.gpt2(input_ids).last_hidden_state[:, -1])


class Distiller(nn.Module):
    def __init__(self, keep_copy):
        super().__init__()
        torch.manual_seed(0)
        scorer = Scorer()
        readout = copy.deepcopy(scorer.readout) if keep_copy else None
        self.lm = get_peft_model(scorer, LoraConfig(r=2, target_modules=["c_attn", "readout"], fan_in_fan_out=True))
        self.student_readout = readout if keep_copy else self.lm.get_base_model().readout

    def forward(self, input_ids, target):
        states = self.lm.get_base_model().gpt2(input_ids).last_hidden_state[:, -1]
        scores = self.student_readout(states)  # <- cause
        return {"loss": nn.functional.cross_entropy(scores, target)}


def program(keep_copy):
    return Example(Distiller(keep_copy), {"input_ids": torch.tensor([[1, 2, 3]]), "target": torch.tensor([4])})


def broken():
    return program(keep_copy=True)


def fixed():
    return program(keep_copy=False)
