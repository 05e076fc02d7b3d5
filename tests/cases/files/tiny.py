"""What the programs of this folder share: a tiny base model, training in one line, saving and rewriting of files."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM


def llama(cls=LlamaForCausalLM, **fields):
    """A Llama of width 16 and, unless told otherwise, two blocks."""
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return cls(LlamaConfig(**{**shape, "num_key_value_heads": 2, "pad_token_id": 0, **fields}))


def trained(model):
    """The model after a training that moved all it could move."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def saved(model, folder):
    """The folder, with the model's adapter in it."""
    model.save_pretrained(folder)
    return folder


def rewritten(folder, change):
    """Pass every tensor of the folder's file through `change(key, value)`; what it gives None for is left out."""
    file = Path(folder, "adapter_model.safetensors")
    pairs = [pair for key, value in load_file(file).items() if (pair := change(key, value))]
    save_file(dict(pairs), file)
