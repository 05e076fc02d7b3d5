"""Two streams through joint attention: what the last block makes of the text stream goes nowhere."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI308", "output-unused"
LAYERS = r".*\.blocks\.1\.(text_out|text_mix)"
DEAD = 4


class Joint(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.image_in, self.text_in, self.image_out, self.text_out = (nn.Linear(width, width) for _ in range(4))
        self.text_mix = nn.Linear(width, width)

    def forward(self, image, text):
        both = torch.cat([self.image_in(image), self.text_in(text)], 1)
        mixed = nn.functional.scaled_dot_product_attention(both, both, both)
        seen, said = mixed[:, : image.shape[1]], mixed[:, image.shape[1] :]
        text = text + self.text_out(said)
        return image + self.image_out(seen), text + self.text_mix(text).tanh()


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.head = nn.ModuleList([Joint(8), Joint(8)]), nn.Linear(8, 8)

    def forward(self, image, text, target):
        for block in self.blocks:
            image, text = block(image, text)
        return nn.functional.mse_loss(self.head(image), target)


def program(config):
    torch.manual_seed(0)
    model = get_peft_model(Denoiser(), config)
    return Example(model, {"image": torch.randn(2, 5, 8), "text": torch.randn(2, 3, 8), "target": torch.randn(2, 5, 8)})


NAMES = ["image_in", "text_in", "image_out", "text_out", "text_mix"]


def broken():
    return program(LoraConfig(r=2, target_modules=NAMES))


def fixed():
    return program(LoraConfig(r=2, target_modules=NAMES, exclude_modules=["blocks.1.text_out", "blocks.1.text_mix"]))
