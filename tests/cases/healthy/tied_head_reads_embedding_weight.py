"""LoRA on embed_tokens of a tied model: lm_head reads the shared weight as its own, which is no bypass."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0))
    model = get_peft_model(gpt2, LoraConfig(r=4, target_modules=["wte", "c_attn"], fan_in_fan_out=True))
    ids = torch.tensor([[10, 11, 12, 13]])
    return Example(model, {"input_ids": ids, "labels": ids})
