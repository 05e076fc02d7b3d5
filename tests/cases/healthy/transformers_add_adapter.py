"""model.add_adapter() of transformers: LoRA is injected, there is no PeftModel anywhere."""

import torch
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example
from tests.versions import require_add_adapter


def healthy():
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    model.requires_grad_(False)
    require_add_adapter()
    model.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    model.train()
    ids = torch.tensor([[1, 2, 3, 4]])
    return Example(model, {"input_ids": ids, "labels": ids})
