"""Activated LoRA under reentrant checkpointing, and nothing makes an input of the first block require grad."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI304", "reentrant-checkpoint-without-grad-input"
LAYERS = r".*(q|v)_proj"
DEAD = 8
VERIFIED = True
SOURCE_ENDS = "transformers/modeling_layers.py"

INVOCATION = [5, 6]


def build():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", alora_invocation_tokens=INVOCATION)
    model = get_peft_model(base, lora).train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    if not hasattr(base, "_require_grads_hook"):  # before transformers 5 nobody has called it yet
        base.enable_input_require_grads()
    return model


def batch():
    ids = torch.tensor([[1, 2, *INVOCATION, 7, 8]])
    return {"input_ids": ids, "labels": ids}


def broken():
    model = build()
    model.get_base_model().disable_input_require_grads()
    return Example(model, batch())


def fixed():
    return Example(build(), batch())
