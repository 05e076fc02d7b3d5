"""A side network joins through a projection that starts at zero and is trained, as in ControlNets: it opens at the first step."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example


class ControlledDenoiser(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        hints = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8))
        self.hints = get_peft_model(hints, LoraConfig(r=2, target_modules=["0", "2"]))
        self.zero_out = nn.Linear(8, 8)
        nn.init.zeros_(self.zero_out.weight)
        nn.init.zeros_(self.zero_out.bias)
        self.gate = nn.Parameter(torch.zeros(()))
        self.denoiser = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8)).requires_grad_(requires_grad=False)

    def forward(self, noisy, hint, noise):
        control = self.hints(hint)
        control = control - control.amax(dim=-1, keepdim=True).detach()
        return {"loss": nn.functional.mse_loss(self.denoiser(noisy + self.zero_out(control) + self.gate.tanh() * control), noise)}


def healthy():
    return Example(ControlledDenoiser(), {name: torch.randn(4, 8) for name in ("noisy", "hint", "noise")})
