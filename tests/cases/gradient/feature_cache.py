"""Features are cached per utterance, detached so that the cache does not hold graphs; the cache is also what is trained on."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r"encoder\..*"
DEAD = 4
VERIFIED = True


class CachedEncoder:
    def __init__(self, encoder):
        self.encoder = encoder
        self.cache = {}

    def __call__(self, key, x):
        if key not in self.cache:
            self.cache[key] = self.encoder(x).detach()  # <- cause
        return self.cache[key]


class SpeakerVerifier(nn.Module):
    def __init__(self, cached):
        super().__init__()
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 8))
        self.encoder = get_peft_model(encoder, LoraConfig(r=2, target_modules=["0", "2"]))
        self.lookup = CachedEncoder(self.encoder) if cached else lambda key, x: self.encoder(x)
        self.bilinear = nn.Bilinear(8, 8, 1)

    def forward(self, anchor, other, same):
        score = self.bilinear(self.lookup("anchor", anchor), self.lookup("other", other))
        return {"loss": nn.functional.binary_cross_entropy_with_logits(score.squeeze(-1), same)}


def batch():
    return {"anchor": torch.randn(3, 10), "other": torch.randn(3, 10), "same": torch.tensor([1.0, 0.0, 1.0])}


def broken():
    return Example(SpeakerVerifier(cached=True), batch())


def fixed():
    return Example(SpeakerVerifier(cached=False), batch())
