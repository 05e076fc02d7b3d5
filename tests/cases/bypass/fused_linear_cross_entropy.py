"""A chunked ("fused") linear cross-entropy takes `lm_head.weight`: LoRA on lm_head is never asked."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*\.lm_head"
DEAD = 2
VERIFIED = True


def chunked_cross_entropy(hidden, weight, labels, chunk=4):
    """Never holds the logits of more than `chunk` positions."""
    total = hidden.new_zeros(())
    for part, target in zip(hidden.split(chunk), labels.split(chunk), strict=True):
        logits = part @ weight.t()  # <- cause
        total = total + torch.nn.functional.cross_entropy(logits.float(), target, reduction="sum")
    return total / labels.numel()


def fused_loss(model, batch):
    causal_lm = model.get_base_model()
    hidden = causal_lm.model(input_ids=batch["input_ids"]).last_hidden_state
    return chunked_cross_entropy(hidden[0, :-1], causal_lm.lm_head.weight, batch["input_ids"][0, 1:])


def plain_loss(model, batch):
    return model(input_ids=batch["input_ids"], labels=batch["input_ids"]).loss


def policy():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=48, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "lm_head"], task_type="CAUSAL_LM")
    return get_peft_model(LlamaForCausalLM(config), lora).train()


def broken():
    return Example(policy(), {"input_ids": torch.arange(10).unsqueeze(0)}, fused_loss)


def fixed():
    return Example(policy(), {"input_ids": torch.arange(10).unsqueeze(0)}, plain_loss)
