"""The targets are the padding that the collator put behind a prompt cut at max_length; the loss ignores padding."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from peft_inspect.rules import Example

RULE, NAME = "PI313", "no-supervised-token"
LAYERS = r".*\.(q|v)"
DEAD = 0
VERIFIED = True

PAD = 0


def loss(model, batch):
    logits = model(input_ids=batch["input_ids"], decoder_input_ids=batch["targets"]).logits
    total = nn.CrossEntropyLoss(ignore_index=PAD, reduction="sum")(logits.flatten(0, 1), batch["targets"].flatten())
    return total / batch["targets"].ne(PAD).sum().clamp(min=1)


def program(targets):
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=24, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_decoder_layers=1, num_heads=2, decoder_start_token_id=PAD
    )
    model = get_peft_model(T5ForConditionalGeneration(config), LoraConfig(r=2, target_modules=["q", "v"]))
    return Example(model, {"input_ids": torch.randint(1, 24, (2, 5)), "targets": targets}, loss)


def broken():
    return program(torch.full((2, 4), PAD))


def fixed():
    return program(torch.tensor([[3, 4, 5, PAD], [6, 7, PAD, PAD]]))
