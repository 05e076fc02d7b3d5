"""Resumed with is_trainable=True: lora_B is no longer zero, so no gradient is."""

import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example


def base():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )


def healthy():
    ids = torch.tensor([[1, 2, 3, 4]])
    with tempfile.TemporaryDirectory() as folder:
        model = get_peft_model(base(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(2):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.save_pretrained(folder)
        model = PeftModel.from_pretrained(base(), folder, is_trainable=True)
    return Example(model.train(), {"input_ids": ids, "labels": ids})
