"""`with model.disable_adapter():` for the reference pass of a GRPO step, under no_grad; the policy pass has gradients."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example


def per_token_logps(model, ids):
    logits = model(input_ids=ids).logits[:, :-1]
    return logits.log_softmax(-1).gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)


def grpo_loss(model, batch):
    ids = batch["input_ids"]
    with torch.no_grad(), model.disable_adapter():
        ref = per_token_logps(model, ids)
    logps = per_token_logps(model, ids)
    kl = torch.exp(ref - logps) - (ref - logps) - 1
    ratio = torch.exp(logps - logps.detach())
    return -(ratio * batch["advantages"][:, None] - 0.04 * kl).mean()


def healthy():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    return Example(model, {"input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), "advantages": torch.tensor([1.0, -1.0])}, grpo_loss)
