"""Checkpointing is switched on for the audio tower alone, after the wrapping: mel features never require grad."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import WhisperConfig, WhisperModel

from peft_inspect.rules import Example

RULE, NAME = "PI304", "reentrant-checkpoint-without-grad-input"
LAYERS = r"whisper\.base_model\.model\.encoder\.layers\.\d\.self_attn\.(q|v)_proj"
DEAD = 12
VERIFIED = True


class KeywordSpotter(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        config = WhisperConfig(
            vocab_size=30,
            d_model=16,
            encoder_layers=3,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            num_mel_bins=8,
            max_source_positions=12,
            max_target_positions=12,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
        lora = LoraConfig(target_modules=r".*encoder\.layers.*\.(q_proj|v_proj)")
        self.whisper = get_peft_model(WhisperModel(config), lora)
        self.head = nn.Linear(16, 5)

    def forward(self, mel, keyword):
        states = self.whisper.get_base_model().encoder(mel).last_hidden_state  # <- cause
        return nn.functional.cross_entropy(self.head(states.mean(1)), keyword)


def program(use_reentrant):
    model = KeywordSpotter().train()
    encoder = model.whisper.get_base_model().encoder
    encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
    return Example(model, {"mel": torch.randn(2, 8, 24), "keyword": torch.tensor([0, 4])})


def broken():
    return program(use_reentrant=True)


def fixed():
    return program(use_reentrant=False)
