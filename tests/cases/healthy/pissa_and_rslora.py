"""Other starting points: PiSSA starts with both factors filled and a changed base weight, rsLoRA scales by the root."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights="pissa", use_rslora=True))
    ids = torch.tensor([[1, 2, 3, 4]])
    return Example(model, {"input_ids": ids, "labels": ids})
