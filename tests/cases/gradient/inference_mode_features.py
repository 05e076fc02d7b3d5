"""Features are computed under inference_mode, as the docs recommend for frozen backbones, and cloned for the head."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI303", "no-grad-region"
LAYERS = r"backbone\..*conv[12]"
DEAD = 4
VERIFIED = True


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, images):
        return self.conv2(self.conv1(images).relu()).mean(dim=(2, 3))


class LinearProbe(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = get_peft_model(Backbone(), LoraConfig(r=2, target_modules=["conv1", "conv2"]))
        self.probe = nn.Linear(8, 2)

    def features(self, images):
        with torch.inference_mode():  # <- cause
            features = self.backbone(images)
        return features.clone()

    def forward(self, images, labels):
        return {"loss": nn.functional.cross_entropy(self.probe(self.features(images)), labels)}


class FullTuning(LinearProbe):
    def features(self, images):
        return self.backbone(images)


def broken():
    return Example(LinearProbe(), {"images": torch.rand(2, 3, 6, 6), "labels": torch.tensor([0, 1])})


def fixed():
    return Example(FullTuning(), {"images": torch.rand(2, 3, 6, 6), "labels": torch.tensor([0, 1])})
