"""A fresh adapter is distilled from the base that it starts out equal to, by cross entropy of the two distributions."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI318", "stationary-start"
LAYERS = r".*\.(0|2)"
DEAD = 0


def distilled_from(teacher):
    def loss(model, batch):
        with torch.no_grad(), model.disable_adapter():
            target = (teacher or model)(batch["input"]).softmax(-1)
        return nn.functional.kl_div(model(batch["input"]).log_softmax(-1), target, reduction="batchmean")

    return loss


def program(teacher):
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)), LoraConfig(r=2, target_modules=["0", "2"]))
    return Example(model, {"input": torch.randn(4, 6)}, distilled_from(teacher))


def broken():
    return program(teacher=None)


def fixed():
    torch.manual_seed(1)
    return program(teacher=nn.Linear(6, 5))
