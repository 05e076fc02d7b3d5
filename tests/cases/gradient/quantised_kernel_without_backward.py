"""A quantised layer calls a kernel that a library registered for the CPU without a derivative; no block lets a gradient through."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI309", "no-gradient"
LAYERS = r".*\.project"
DEAD = 4

_KERNELS = torch.library.Library("packed_kernels", "FRAGMENT")
_KERNELS.define("matmul(Tensor x, Tensor weight) -> Tensor")
_KERNELS.impl("matmul", lambda x, weight: torch.from_numpy(x.detach().numpy() @ weight.detach().numpy().T), "CPU")


class Packed(nn.Linear):
    packed = True

    def forward(self, x):
        return torch.ops.packed_kernels.matmul(x, self.weight) if self.packed else x @ self.weight.T  # <- cause


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.mix = nn.Linear(6, 6), Packed(6, 6, bias=False)

    def forward(self, x):
        return self.mix(self.project(x).tanh())


def program(packed):
    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block(), nn.Linear(6, 2))
    for block in model[:2]:
        block.mix.packed = packed
    peft_model = get_peft_model(model, LoraConfig(r=2, target_modules=["project"], modules_to_save=["2"]))
    return Example(peft_model, {"input": torch.randn(4, 6)}, lambda model, batch: model(batch["input"]).square().mean())


def broken():
    return program(packed=True)


def fixed():
    return program(packed=False)
