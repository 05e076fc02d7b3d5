"""A long prompt is read into the key-value cache under no_grad; the reply is trained on with that cache."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from peft_inspect.rules import Example


def reply_loss(model, batch):
    with torch.no_grad():
        cache = model(input_ids=batch["prompt"], use_cache=True).past_key_values
    logits = model(input_ids=batch["reply"], past_key_values=cache).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["reply"][:, 1:].flatten())


def healthy():
    torch.manual_seed(0)
    base = GPT2LMHeadModel(GPT2Config(vocab_size=24, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2))
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM")).train()
    return Example(model, {"prompt": torch.tensor([[3, 4, 5, 6]]), "reply": torch.tensor([[7, 8, 9, 2]])}, reply_loss)
