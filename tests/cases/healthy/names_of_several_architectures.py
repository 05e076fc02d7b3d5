"""One list of targets serves several architectures: what another calls `query`, this one calls `q_proj`. A note says so, no more."""

import copy

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

FIXED_DEAD = 8  # the teacher's


class Distilled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
        lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "query", "value"])
        self.student = get_peft_model(LlamaForCausalLM(config), lora)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = self.teacher(input_ids).logits.flip(1)
        return (self.student(input_ids).logits - wanted).square().mean()


def healthy():
    torch.manual_seed(0)
    return Example(Distilled(), {"input_ids": torch.tensor([[1, 2, 3, 4]])})
