"""Sequence training on the scores that generate() returns: generate() runs without gradients, whatever it is asked for."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from peft_inspect.rules import Example

RULE, NAME = "PI303", "no-grad-region"
LAYERS = r".*c_attn"
DEAD = 4
VERIFIED = None


class ReplyTrainer(nn.Module):
    def __init__(self, score):
        super().__init__()
        torch.manual_seed(0)
        base = GPT2LMHeadModel(GPT2Config(vocab_size=24, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2))
        self.policy = get_peft_model(base, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"))
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.score = score

    def forward(self, input_ids, reward):
        return {"loss": -(reward * self.score(self.policy, input_ids) / self.temperature).mean()}


def scores_of_generate(policy, ids):
    reply = policy.generate(input_ids=ids, max_new_tokens=3, output_scores=True, return_dict_in_generate=True, pad_token_id=0)  # <- cause
    return torch.stack(reply.scores, 1).log_softmax(-1).amax(-1).sum(1)


def scores_of_a_pass(policy, ids):
    reply = policy.generate(input_ids=ids, max_new_tokens=3, pad_token_id=0)
    logits = policy(input_ids=reply).logits[:, :-1].log_softmax(-1)
    return logits.gather(-1, reply[:, 1:, None]).sum((1, 2))


def batch():
    return {"input_ids": torch.tensor([[3, 4, 5], [6, 7, 8]]), "reward": torch.tensor([1.0, -0.5])}


def broken():
    return Example(ReplyTrainer(scores_of_generate), batch())


def fixed():
    return Example(ReplyTrainer(scores_of_a_pass), batch())
