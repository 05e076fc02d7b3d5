"""q/k/v of Qwen2-Audio match in both towers, and the objective only ever calls the audio tower."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from peft_inspect.rules import Example

RULE, NAME = "PI208", "branch-not-executed"
LAYERS = r"model\.base_model\.model\.(model\.)?language_model\..*"
DEAD = 12


def load():
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
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
            },
            audio_token_index=63,
        )
    )


class EmotionHead(nn.Module):
    def __init__(self, target_modules):
        super().__init__()
        self.model = get_peft_model(load(), LoraConfig(r=2, target_modules=target_modules))
        self.proj_speech = nn.Linear(16, 4)

    def forward(self, input_features, labels):
        base = self.model.get_base_model()
        tower = getattr(base, "model", base).audio_tower  # below `.model` from transformers 5.9 on
        pooled = tower(input_features).last_hidden_state.mean(dim=1)
        return {"loss": nn.functional.cross_entropy(self.proj_speech(pooled), labels)}


utterances = {"input_features": torch.randn(2, 8, 20), "labels": torch.tensor([3, 0])}


def broken():
    return Example(EmotionHead(["q_proj", "k_proj", "v_proj"]), utterances)


def fixed():
    return Example(EmotionHead(r".*audio_tower.*\.(q_proj|k_proj|v_proj)"), utterances)
