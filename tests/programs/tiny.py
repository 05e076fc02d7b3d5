"""What the programs of this folder train, as any user's module beside the script."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

IDS = torch.arange(1, 13).unsqueeze(0)
ROWS = [{"input_ids": row, "labels": row.clone()} for row in torch.arange(8 * 12).reshape(8, 12) % 60]


def llama(**fields: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(**{**shape, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 3, "eos_token_id": 1, **fields})
    )


def lora(**fields: Any) -> LoraConfig:
    return LoraConfig(**{"target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1, **fields})


def wrapped(**fields: Any) -> Any:
    return get_peft_model(llama(), lora(**fields))


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
