"""Soft prompts are gathered with `embed_tokens.weight[ids]`: LoRA on the embedding is never asked."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r".*embed_tokens"
DEAD = 2
VERIFIED = True


def lm():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    return get_peft_model(base, LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"]))


def by_weight(model, batch):
    embed = model.get_base_model().get_input_embeddings()
    prompt = embed.weight[batch["prompt"]]  # <- cause
    return model(inputs_embeds=prompt, labels=batch["prompt"]).loss


def by_module(model, batch):
    embed = model.get_base_model().get_input_embeddings()
    return model(inputs_embeds=embed(batch["prompt"]), labels=batch["prompt"]).loss


def broken():
    return Example(lm(), {"prompt": torch.tensor([[1, 2, 3, 4]])}, by_weight)


def fixed():
    return Example(lm(), {"prompt": torch.tensor([[1, 2, 3, 4]])}, by_module)
