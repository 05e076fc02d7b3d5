"""The encoder of a T5 is run under `with torch.no_grad()` because "only the decoder is tuned"; LoRA went into both."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from peft_inspect.rules import Example

RULE, NAME = "PI303", "no-grad-region"
LAYERS = r"t5\.base_model\.model\.encoder\..*"
DEAD = 8
VERIFIED = True


class Summariser(nn.Module):
    def __init__(self, frozen_encoder):
        super().__init__()
        torch.manual_seed(0)
        config = T5Config(
            vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=2, decoder_start_token_id=0
        )
        self.t5 = get_peft_model(T5ForConditionalGeneration(config), LoraConfig(r=2, target_modules=["q", "v"]))
        self.frozen_encoder = frozen_encoder

    def forward(self, input_ids, labels):
        encoder = self.t5.get_base_model().encoder
        if self.frozen_encoder:
            with torch.no_grad():  # <- cause
                encoded = encoder(input_ids=input_ids)
        else:
            encoded = encoder(input_ids=input_ids)
        return self.t5(encoder_outputs=encoded, labels=labels)


def broken():
    return Example(Summariser(True), {"input_ids": torch.tensor([[4, 5, 6, 1]]), "labels": torch.tensor([[7, 8, 1]])})


def fixed():
    return Example(Summariser(False), {"input_ids": torch.tensor([[4, 5, 6, 1]]), "labels": torch.tensor([[7, 8, 1]])})
