"""The policy ratio of GRPO is switched off and becomes a constant; the KL term that is left has its minimum at the fresh adapter."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI318", "stationary-start"
LAYERS = r".*\.(0|2)"
DEAD = 0


def policy_loss(level):
    def loss(model, batch):
        with torch.no_grad(), model.disable_adapter():
            reference = model(batch["input"]).log_softmax(-1)[:, 0]
        logps = model(batch["input"]).log_softmax(-1)[:, 0]
        log_ratio = torch.zeros_like(logps) if level is None else logps - logps.detach()  # <- cause
        kl = torch.exp(reference - logps) - (reference - logps) - 1
        return (0.04 * kl - torch.exp(log_ratio) * batch["advantages"]).mean()

    return loss


def program(level):
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)), LoraConfig(r=2, target_modules=["0", "2"]))
    return Example(model, {"input": torch.randn(4, 6), "advantages": torch.tensor([1.0, -0.5, 0.25, -0.75])}, policy_loss(level))


def broken():
    return program(level=None)


def fixed():
    return program(level="token")
