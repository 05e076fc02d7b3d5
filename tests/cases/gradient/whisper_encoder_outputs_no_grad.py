"""Whisper's encoder runs once under no_grad, and its output is handed to the decoder as `encoder_outputs`."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import WhisperConfig, WhisperForConditionalGeneration

from peft_inspect.rules import Example

RULE, NAME = "PI303", "no-grad-region"
LAYERS = r".*\.encoder\..*"
DEAD = 8
VERIFIED = True


def whisper():
    torch.manual_seed(0)
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "num_mel_bins": 8, "vocab_size": 32}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    model = WhisperForConditionalGeneration(WhisperConfig(max_source_positions=10, max_target_positions=12, **layers, **widths, **tokens))
    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).train()


def frozen_encoder_loss(model, batch):
    encoder = model.get_base_model().get_encoder()
    with torch.no_grad():  # <- cause
        states = encoder(batch["input_features"])
    return model(encoder_outputs=states, labels=batch["labels"]).loss


def adapted_encoder_loss(model, batch):
    states = model.get_base_model().get_encoder()(batch["input_features"])
    return model(encoder_outputs=states, labels=batch["labels"]).loss


def batch():
    return {"input_features": torch.randn(1, 8, 20), "labels": torch.tensor([[4, 5, 6, 2]])}


def broken():
    return Example(whisper(), batch(), frozen_encoder_loss)


def fixed():
    return Example(whisper(), batch(), adapted_encoder_loss)
