"""Long recordings are encoded chunk by chunk, by a generator that is decorated with no_grad."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI303", "no-grad-region"
LAYERS = r".*encoder.*"
DEAD = 4
VERIFIED = True


class Recogniser(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = get_peft_model(
            nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)), LoraConfig(r=2, target_modules=["0", "2"])
        )
        self.head = nn.Linear(8, 3)

    @torch.no_grad()  # <- cause
    def chunks(self, frames):
        for chunk in frames.split(4):
            yield self.encoder(chunk)

    def forward(self, frames):
        return self.head(torch.cat(list(self.chunks(frames)))).square().mean()


class TrainedRecogniser(Recogniser):
    def chunks(self, frames):
        for chunk in frames.split(4):
            yield self.encoder(chunk)


def build(cls):
    torch.manual_seed(0)
    return Example(cls(), {"frames": torch.randn(8, 8)})


def broken():
    return build(Recogniser)


def fixed():
    return build(TrainedRecogniser)
