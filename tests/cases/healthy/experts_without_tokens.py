"""A per-expert Linear MoE: experts that got no token in this batch have no gradient."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

FIXED_DEAD = 24


class Expert(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.w1 = nn.Linear(dim, 2 * dim)
        self.w2 = nn.Linear(2 * dim, dim)

    def forward(self, x):
        return self.w2(torch.nn.functional.silu(self.w1(x)))


class SparseMoE(nn.Module):
    def __init__(self, dim=8, n_experts=8):
        super().__init__()
        self.gate = nn.Linear(dim, n_experts, bias=False)
        self.experts = nn.ModuleList(Expert(dim) for _ in range(n_experts))

    def forward(self, x):
        weight, choice = self.gate(x).softmax(-1).max(-1)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows = (choice == index).nonzero().flatten()
            if len(rows):
                out = out.index_add(0, rows, expert(x[rows]) * weight[rows, None])
        return x + out


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(8, 8)
        self.moe = SparseMoE()

    def forward(self, x):
        return {"loss": self.moe(self.inp(x)).square().mean()}


def healthy():
    torch.manual_seed(0)
    model = get_peft_model(Net(), LoraConfig(r=2, target_modules=["inp", "w1", "w2"]))
    return Example(model, {"x": torch.randn(2, 8)})
