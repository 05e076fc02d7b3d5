"""Non-reentrant checkpointing on frozen inputs."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"]))
    model.get_base_model().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    ids = torch.tensor([[1, 2, 3, 4]])
    return Example(model, {"input_ids": ids, "labels": ids})
