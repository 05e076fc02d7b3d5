"""`.data` to "get at the tensor", from old tutorials."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r"encoder\..*"
DEAD = 4
VERIFIED = True


class AutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 4))
        self.encoder = get_peft_model(encoder, LoraConfig(r=2, target_modules=["0", "2"]))
        self.decoder = nn.Linear(4, 12)

    def forward(self, x):
        code = self.encoder(x)
        code = code.data  # <- cause
        return nn.functional.mse_loss(self.decoder(code), x)


class Sound(AutoEncoder):
    def forward(self, x):
        return nn.functional.mse_loss(self.decoder(self.encoder(x)), x)


def broken():
    return Example(AutoEncoder(), {"x": torch.randn(4, 12)})


def fixed():
    return Example(Sound(), {"x": torch.randn(4, 12)})
