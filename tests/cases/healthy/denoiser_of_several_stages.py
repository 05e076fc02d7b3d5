"""A U-Net with the usual names of attention: its stages are one model and not towers."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        return x + self.to_out(nn.functional.scaled_dot_product_attention(self.to_q(x), self.to_k(x), self.to_v(x)))


class Stage(nn.Module):
    def __init__(self, width, blocks):
        super().__init__()
        self.attentions = nn.ModuleList(Attention(width) for _ in range(blocks))

    def forward(self, x):
        for attention in self.attentions:
            x = attention(x)
        return x


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_in, self.conv_out = nn.Linear(4, 8), nn.Linear(8, 4)
        self.down_blocks, self.mid_block = nn.ModuleList([Stage(8, 2), Stage(8, 2)]), Stage(8, 1)
        self.up_blocks = nn.ModuleList([Stage(8, 3), Stage(8, 3)])

    def forward(self, sample, target):
        hidden, kept = self.conv_in(sample), []
        for stage in self.down_blocks:
            hidden = stage(hidden)
            kept.append(hidden)
        hidden = self.mid_block(hidden)
        for stage in self.up_blocks:
            hidden = stage(hidden + kept.pop())
        return nn.functional.mse_loss(self.conv_out(hidden), target)


def healthy():
    torch.manual_seed(0)
    model = get_peft_model(Denoiser(), LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out"]))
    return Example(model, {"sample": torch.randn(2, 6, 4), "target": torch.randn(2, 6, 4)})
