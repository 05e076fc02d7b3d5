"""A codebook with the straight-through estimator: argmin, an embedding lookup, and the gradient passed around both."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example


class Codec(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv1d(2, 8, 3, padding=1), nn.GELU(), nn.Conv1d(8, 4, 1))
        self.codebook = nn.Embedding(6, 4)
        self.decoder = nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.GELU(), nn.Conv1d(8, 2, 1))

    def quantise(self, states):
        flat = states.transpose(1, 2)
        nearest = torch.cdist(flat, self.codebook.weight.unsqueeze(0)).argmin(-1)
        codes = self.codebook(nearest).transpose(1, 2)
        commitment = (states - codes.detach()).square().mean()
        return states + (codes - states).detach(), commitment

    def forward(self, waveform):
        codes, commitment = self.quantise(self.encoder(waveform))
        return {"loss": (self.decoder(codes) - waveform).square().mean() + 0.25 * commitment}


def healthy():
    lora = LoraConfig(r=2, target_modules=["encoder.0", "encoder.2", "decoder.0", "decoder.2"])
    return Example(get_peft_model(Codec(), lora).train(), {"waveform": torch.randn(2, 2, 10)})
