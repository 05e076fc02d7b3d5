"""Prompts are sampled with torch.multinomial and scored: sampling passes no gradient to the prompt writer."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from peft_inspect.rules import Example

RULE, NAME = "PI306", "non-differentiable-step"
LAYERS = r"writer\..*"
DEAD = 4


def gpt2():
    config = GPT2Config(vocab_size=20, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config)


class PromptTuner(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.writer = get_peft_model(gpt2(), LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
        self.judge = nn.Embedding(20, 1)

    def forward(self, seed):
        probabilities = self.writer(input_ids=seed).logits[:, -1].softmax(-1)
        token = torch.multinomial(probabilities, 3)  # <- cause
        return {"loss": -self.judge(token).mean()}


class Reinforce(PromptTuner):
    def forward(self, seed):
        probabilities = self.writer(input_ids=seed).logits[:, -1].softmax(-1)
        with torch.no_grad():
            token = torch.multinomial(probabilities, 3)
            reward = self.judge(token).squeeze(-1)
        return {"loss": -(probabilities.gather(-1, token).log() * reward).mean() - self.judge(token).mean()}


def broken():
    return Example(PromptTuner(), {"seed": torch.tensor([[1, 2, 3]])})


def fixed():
    return Example(Reinforce(), {"seed": torch.tensor([[1, 2, 3]])})
