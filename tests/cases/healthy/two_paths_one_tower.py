"""The tower is reached through PEFT's attribute forwarding; the long path leads to the same object."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from peft_inspect.rules import Example


def qwen2_audio():
    torch.manual_seed(0)
    return Qwen2AudioForConditionalGeneration(
        Qwen2AudioConfig(
            audio_config={
                "model_type": "qwen2_audio_encoder",
                "num_mel_bins": 8,
                "d_model": 16,
                "encoder_layers": 2,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 32,
                "max_source_positions": 10,
            },
            text_config={
                "model_type": "qwen2",
                "vocab_size": 64,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
            },
            audio_token_index=63,
        )
    )


def inside(base):
    """Where the towers are: below `.model` from transformers 5.9 on."""
    return getattr(base, "model", base)


class SpeechModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = get_peft_model(qwen2_audio(), LoraConfig(target_modules=r".*audio_tower.*_proj"))
        self.audio_tower = inside(self.model.base_model.model).audio_tower
        self.proj_speech = nn.Linear(16, 4)

    def forward(self, input_features, labels):
        assert inside(self.model.model).audio_tower is self.audio_tower
        states = inside(self.model.model).audio_tower(input_features).last_hidden_state
        return {"loss": nn.functional.cross_entropy(self.proj_speech(states.mean(1)), labels)}


def healthy():
    return Example(SpeechModel(), {"input_features": torch.randn(2, 8, 20), "labels": torch.tensor([0, 3])})
