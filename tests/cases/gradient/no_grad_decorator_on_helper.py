"""The feature helper of a speech model is still decorated with no_grad, from the days of the frozen encoder."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from peft_inspect.rules import Example

RULE, NAME = "PI303", "no-grad-region"
LAYERS = r"backbone\..*\.(q_proj|v_proj)"
DEAD = 8
VERIFIED = True


def wav2vec2():
    torch.manual_seed(0)
    return Wav2Vec2Model(
        Wav2Vec2Config(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            conv_dim=(8, 8),
            conv_stride=(4, 2),
            conv_kernel=(8, 4),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            mask_time_prob=0.0,
            layerdrop=0.0,
        )
    )


class SpeakerModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = get_peft_model(wav2vec2(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        self.projector = nn.Linear(16, 8)

    @torch.no_grad()  # <- cause
    def extract_features(self, waveform):
        return self.backbone(waveform).last_hidden_state.mean(dim=1)

    def forward(self, waveform, speaker):
        logits = self.projector(self.extract_features(waveform))
        return {"loss": nn.functional.cross_entropy(logits, speaker)}


class TrainedSpeakerModel(SpeakerModel):
    def extract_features(self, waveform):
        return self.backbone(waveform).last_hidden_state.mean(dim=1)


batch = {"waveform": torch.randn(2, 400), "speaker": torch.tensor([3, 1])}


def broken():
    return Example(SpeakerModel(), batch)


def fixed():
    return Example(TrainedSpeakerModel(), batch)
