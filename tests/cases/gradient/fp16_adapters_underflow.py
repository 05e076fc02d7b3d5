"""fp16 adapters and a tiny loss weight without a GradScaler: every gradient is below the smallest float16."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.rules import Example

RULE, NAME = "PI314", "gradient-underflow"
LAYERS = r".*fc[12]"
DEAD = 0


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(8, 16)
        self.fc2 = nn.Linear(16, 8)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


def auxiliary_loss(model, batch):
    return (model(batch["x"]).float() - batch["y"]).pow(2).mean() * 1e-7


def scaled_loss(model, batch):
    """What GradScaler makes of it."""
    return auxiliary_loss(model, batch) * 2.0**16


def example(loss):
    torch.manual_seed(0)
    net = Net().half()
    lora = LoraConfig(r=2, target_modules=["fc1", "fc2"], init_lora_weights=False)
    model = get_peft_model(net, lora, autocast_adapter_dtype=False)
    return Example(model, {"x": torch.randn(4, 8).half(), "y": torch.randn(4, 8)}, loss)


def broken():
    return example(auxiliary_loss)


def fixed():
    return example(scaled_loss)
