"""Tokens were added before the training, the embedding was saved with the adapter, and the new base was not resized."""

from peft import LoraConfig, get_peft_model
from tiny import llama, saved, trained

RULE, NAME = "PI403", "adapter-shape-mismatch"
LAYERS = r"base_model\.model\.model\.embed_tokens"


def wrapped(tokens):
    base = llama()
    if tokens:
        base.resize_token_embeddings(tokens)
    return trained(get_peft_model(base, LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens"])))


def broken(folder):
    return wrapped(None), saved(wrapped(70), folder)


def fixed(folder):
    return wrapped(70), saved(wrapped(70), folder)
