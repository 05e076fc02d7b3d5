"""torch.fx captured the encoder before the wrapping: the graph module calls the Linears it saw then."""

import torch
from peft import LoraConfig, get_peft_model
from torch import fx, nn

from peft_inspect.rules import Example

RULE, NAME = "PI202", "base-layer-called-directly"
LAYERS = r"encoder\.base_model\.model\.(fc1|fc2)"
DEAD = 4
VERIFIED = True


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(8, 16)
        self.fc2 = nn.Linear(16, 8)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class Model(nn.Module):
    def __init__(self, capture):
        super().__init__()
        torch.manual_seed(0)
        encoder = Encoder()
        captured = fx.symbolic_trace(encoder)
        self.encoder = get_peft_model(encoder, LoraConfig(r=2, target_modules=["fc1", "fc2"]))
        self.run = captured if capture else self.encoder
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return {"loss": self.head(self.run(x)).square().mean()}


def broken():
    return Example(Model(capture=True), {"x": torch.randn(3, 8)})


def fixed():
    return Example(Model(capture=False), {"x": torch.randn(3, 8)})
