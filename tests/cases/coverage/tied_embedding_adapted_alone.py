"""LoRA on the embedding of a tied model: the head goes on with the unadapted matrix."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE = "PI111"


def llama(**fields):
    torch.manual_seed(0)
    shape = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**{**shape, **fields}))


def broken():
    return Example(get_peft_model(llama(tie_word_embeddings=True), LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"])))


def fixed():
    config = LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True)
    return Example(get_peft_model(llama(tie_word_embeddings=True), config))
