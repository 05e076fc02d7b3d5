"""Image hashing on CLIP: codes are the sign of the features, whose derivative is zero everywhere."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from peft_inspect.rules import Example

RULE, NAME = "PI306", "non-differentiable-step"
LAYERS = r"vision\..*"
DEAD = 0


class HashNet(nn.Module):
    def __init__(self, binarise):
        super().__init__()
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        vision = CLIPVisionModel(CLIPVisionConfig(image_size=8, patch_size=4, **shape))
        self.vision = get_peft_model(vision, LoraConfig(r=2, target_modules=["q_proj", "fc1"]))
        self.codebook = nn.Parameter(torch.randn(4, 16))
        self.binarise = binarise

    def forward(self, pixel_values, labels):
        features = self.vision(pixel_values).last_hidden_state.mean(1)
        codes = self.binarise(features)
        return nn.functional.cross_entropy(codes @ self.codebook.T, labels)


def hard(features):
    return torch.sign(features)  # <- cause


def program(binarise):
    return Example(HashNet(binarise), {"pixel_values": torch.rand(3, 3, 8, 8), "labels": torch.tensor([0, 1, 2])})


def broken():
    return program(hard)


def fixed():
    return program(torch.tanh)
