"""The audio encoder is copied out of Qwen2-Audio before the wrapping, and the copy is what the classifier calls."""

import copy

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from peft_inspect.rules import Example

RULE, NAME = "PI203", "unadapted-copy-called"
LAYERS = r"model\.base_model\.model\.(model\.)?audio_tower\..*"
DEAD = 24
VERIFIED = True


def qwen2_audio():
    torch.manual_seed(0)
    audio = {"d_model": 16, "encoder_layers": 4, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    text = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return Qwen2AudioForConditionalGeneration(
        Qwen2AudioConfig(
            audio_config={"model_type": "qwen2_audio_encoder", "num_mel_bins": 8, "max_source_positions": 10, **audio},
            text_config={"model_type": "qwen2", **text, **heads},
            audio_token_index=63,
        )
    )


class Classifier(nn.Module):
    def __init__(self, take_a_copy):
        super().__init__()
        base = qwen2_audio()
        if take_a_copy:
            self.encoder = copy.deepcopy(getattr(base, "model", base).audio_tower)
            self.encoder.requires_grad_(False)
        config = LoraConfig(r=2, target_modules=r".*audio_tower.*\.(q_proj|k_proj|v_proj)")
        self.model = get_peft_model(base, config)
        if not take_a_copy:
            self.encoder = getattr(base, "model", base).audio_tower  # below `.model` from transformers 5.9 on
        self.proj_speech = nn.Linear(16, 3)

    def forward(self, input_features, labels):
        features = self.encoder(input_features)  # <- cause
        logits = self.proj_speech(features.last_hidden_state.mean(1))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def example(take_a_copy):
    return Example(Classifier(take_a_copy), {"input_features": torch.randn(2, 8, 20), "labels": torch.tensor([0, 2])})


def broken():
    return example(take_a_copy=True)


def fixed():
    return example(take_a_copy=False)
