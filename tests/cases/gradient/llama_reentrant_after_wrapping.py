"""gradient_checkpointing_enable(use_reentrant=True) called after get_peft_model: PEFT no longer adds input gradients."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI304", "reentrant-checkpoint-without-grad-input"
LAYERS = r".*self_attn\.(q|k|v|o)_proj"
DEAD = 16
VERIFIED = True


def model(use_reentrant):
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    lora = LoraConfig(r=2, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")
    peft_model = get_peft_model(base, lora).train()
    peft_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
    if not hasattr(base, "_require_grads_hook"):  # before transformers 5 nobody has called it yet
        base.enable_input_require_grads()
    return peft_model


def batch():
    ids = torch.tensor([[1, 2, 3]])
    return {"input_ids": ids, "labels": ids}


def broken():
    peft_model = model(use_reentrant=True)
    peft_model.get_base_model().disable_input_require_grads()
    return Example(peft_model, batch())


def fixed():
    return Example(model(use_reentrant=False), batch())
