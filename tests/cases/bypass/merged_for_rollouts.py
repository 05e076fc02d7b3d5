"""The adapter is merged for fast rollouts, and the training step starts before anyone unmerges it."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from peft_inspect.rules import Example

RULE, NAME = "PI206", "adapter-merged"
LAYERS = r".*\.c_attn"
DEAD = 4
VERIFIED = True


def policy():
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2))
    return get_peft_model(gpt2, LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"))


@torch.no_grad()
def rollout(model, prompt):
    model.merge_adapter()
    return model.generate(input_ids=prompt, max_new_tokens=4, do_sample=False, pad_token_id=0)


def prepare(unmerge):
    model = policy()
    tokens = rollout(model, torch.tensor([[1, 2, 3]]))
    if unmerge:
        model.unmerge_adapter()
    model.train()
    return Example(model, {"input_ids": tokens, "labels": tokens.clone()})


def broken():
    return prepare(unmerge=False)


def fixed():
    return prepare(unmerge=True)
