"""Two faults, two findings: the vision side runs under no_grad, and the text side is detached before the match."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

FAULTS = (
    {"RULE": "PI303", "NAME": "no-grad-region", "LAYERS": r"vision\..*", "VERIFIED": True},
    {"RULE": "PI305", "NAME": "detached-activation", "LAYERS": r"text\..*", "VERIFIED": True},
)
DEAD = 8


def tower(width):
    return get_peft_model(nn.Sequential(nn.Linear(width, 8), nn.GELU(), nn.Linear(8, 8)), LoraConfig(r=2, target_modules=["0", "2"]))


class DualEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.vision, self.text = tower(12), tower(6)
        self.project_image, self.project_text = nn.Linear(8, 8), nn.Linear(8, 8)

    def encode(self, image, text):
        with torch.no_grad():  # <- cause PI303
            image = self.vision(image)
        text = self.text(text).detach()  # <- cause PI305
        return image, text

    def forward(self, image, text):
        image, text = self.encode(image, text)
        logits = self.project_image(image) @ self.project_text(text).T
        return nn.functional.cross_entropy(logits, torch.arange(len(logits)))


class SoundDualEncoder(DualEncoder):
    def encode(self, image, text):
        return self.vision(image), self.text(text)


def broken():
    return Example(DualEncoder(), {"image": torch.randn(3, 12), "text": torch.randn(3, 6)})


def fixed():
    return Example(SoundDualEncoder(), {"image": torch.randn(3, 12), "text": torch.randn(3, 6)})
