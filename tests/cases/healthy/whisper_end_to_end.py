"""Whisper with LoRA on both sides, conv stem frozen, tied output projection."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import WhisperConfig, WhisperForConditionalGeneration

from peft_inspect.rules import Example


def healthy():
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=30,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
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
    model = get_peft_model(WhisperForConditionalGeneration(config), LoraConfig(r=4, target_modules=["q_proj", "v_proj", "fc1"]))
    return Example(model, {"input_features": torch.randn(1, 8, 24), "labels": torch.tensor([[5, 6, 7, 2]])})
