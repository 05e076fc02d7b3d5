"""Hard Gumbel-softmax: an argmax inside, and a gradient all the same."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example


class Tokeniser(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_logits = nn.Linear(8, 16)
        self.codebook = nn.Embedding(16, 8)
        self.decoder = nn.Linear(8, 8)

    def forward(self, x):
        one_hot = nn.functional.gumbel_softmax(self.to_logits(x), tau=0.9, hard=True)
        return {"loss": nn.functional.mse_loss(self.decoder(one_hot @ self.codebook.weight), x)}


def healthy():
    torch.manual_seed(0)
    return Example(get_peft_model(Tokeniser(), LoraConfig(r=2, target_modules=["to_logits", "decoder"])), {"x": torch.randn(4, 8)})
