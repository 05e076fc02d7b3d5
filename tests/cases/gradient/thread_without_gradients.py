"""Features are prepared in a thread of its own, whose work starts with gradients switched off."""

import threading

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI303", "no-grad-region"
LAYERS = r".*\.backbone\.0"
DEAD = 2
VERIFIED = True


class Probe(nn.Module):
    def __init__(self, off):
        super().__init__()
        self.backbone, self.head, self.off = nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.Linear(8, 2), off

    def forward(self, x):
        features = []

        def work():
            with torch.set_grad_enabled(not self.off):  # <- cause
                features.append(self.backbone(x))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return self.head(features[0])


def program(off):
    torch.manual_seed(0)
    model = get_peft_model(Probe(off), LoraConfig(r=2, target_modules=r"backbone\.0", modules_to_save=["head"]))
    return Example(model, {"x": torch.randn(3, 6)}, lambda model, batch: model(batch["x"]).square().mean())


def broken():
    return program(off=True)


def fixed():
    return program(off=False)
