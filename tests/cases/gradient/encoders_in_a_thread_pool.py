"""Two encoders overlap in a thread pool, and the worker hands back a plain tensor."""

from concurrent.futures import ThreadPoolExecutor

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI305", "detached-activation"
LAYERS = r".*\.(text|image)\.0"
DEAD = 4
VERIFIED = True

POOL = ThreadPoolExecutor(2)


class Pair(nn.Module):
    def __init__(self, plain):
        super().__init__()
        self.text, self.image = (nn.Sequential(nn.Linear(6, 8), nn.Tanh()) for _ in range(2))
        self.head, self.plain = nn.Linear(8, 4), plain

    def encode(self, tower, values):
        states = tower(values)
        return states.detach() if self.plain else states  # <- cause

    def forward(self, text, image):
        texts, images = POOL.submit(self.encode, self.text, text), POOL.submit(self.encode, self.image, image)
        scores = self.head(texts.result()) @ self.head(images.result()).T
        return {"loss": nn.functional.cross_entropy(scores, torch.arange(len(scores)))}


def program(plain):
    torch.manual_seed(0)
    model = get_peft_model(Pair(plain), LoraConfig(r=2, target_modules=r"(text|image)\.0", modules_to_save=["head"]))
    return Example(model, {"text": torch.randn(3, 6), "image": torch.randn(3, 6)})


def broken():
    return program(plain=True)


def fixed():
    return program(plain=False)
