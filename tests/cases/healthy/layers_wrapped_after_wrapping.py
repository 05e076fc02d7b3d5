"""A module that logs is put around each adapter layer afterwards, and stands under its name: the layer inside is called."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example


class Logged(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.norms: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.layer(x)
        self.norms.append(out.detach().norm().item())
        return out


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x).relu())


def healthy():
    torch.manual_seed(0)
    base = FeedForward()
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["up", "down"]))
    base.up, base.down = Logged(base.up), Logged(base.down)
    return Example(model, {"x": torch.randn(3, 8)}, loss=lambda model, batch: model(**batch).square().mean())
