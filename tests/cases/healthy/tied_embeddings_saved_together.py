"""A tied model with embed_tokens in modules_to_save and ensure_weight_tying: head and embedding stay one tensor."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    lora = LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    model = get_peft_model(LlamaForCausalLM(config), lora)
    ids = torch.tensor([[1, 2, 3, 4]])
    return Example(model, {"input_ids": ids, "labels": ids})
