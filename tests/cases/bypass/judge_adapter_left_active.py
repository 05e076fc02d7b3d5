"""The judge scores the prompt first, and nobody switches back to the policy before it is trained."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI207", "adapter-not-active"
LAYERS = r".*_proj"
DEAD = 8
FIXED_DEAD = 8
VERIFIED = True


class SelfRewarding(nn.Module):
    def __init__(self, switch_back):
        super().__init__()
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
        shape = Qwen2Config(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, **heads)
        lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
        self.lm = get_peft_model(Qwen2ForCausalLM(shape), lora, adapter_name="policy")
        self.lm.add_adapter("judge", lora)
        self.lm.set_adapter("policy")
        self.switch_back = switch_back

    def forward(self, input_ids, labels):
        self.lm.set_adapter("judge")  # <- cause
        with torch.no_grad():
            reward = self.lm(input_ids).logits.mean()
        if self.switch_back:
            self.lm.set_adapter("policy")
        return {"loss": self.lm(input_ids, labels=labels).loss * (1 + reward)}


def program(back):
    ids = torch.randint(3, 40, (2, 6))
    return Example(SelfRewarding(back), {"input_ids": ids, "labels": ids})


def broken():
    return program(False)


def fixed():
    return program(True)
