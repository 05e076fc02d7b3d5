"""Each step also generates a sample for the log, under generate()'s own no_grad, besides the trained pass."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from peft_inspect.rules import Example


def step(model, batch):
    model.eval()
    sample = model.generate(input_ids=batch["input_ids"][:, :2], max_new_tokens=2, do_sample=True, pad_token_id=0)
    model.train()
    assert sample.shape[1] <= 4
    return model(**batch).loss


def healthy():
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0))
    model = get_peft_model(gpt2, LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"))
    ids = torch.tensor([[10, 11, 12, 13]])
    return Example(model, {"input_ids": ids, "labels": ids}, step)
