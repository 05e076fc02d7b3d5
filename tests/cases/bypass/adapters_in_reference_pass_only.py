"""The context managers are swapped: the reference runs with adapters, the policy that is trained without."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example

RULE, NAME = "PI205", "adapters-disabled"
LAYERS = r"policy\..*"
DEAD = 8
VERIFIED = True


def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    return LlamaForCausalLM(config)


class GRPO(nn.Module):
    def __init__(self):
        super().__init__()
        self.policy = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        self.value_head = nn.Linear(16, 1)

    def logps(self, ids):
        out = self.policy(input_ids=ids, output_hidden_states=True)
        picked = out.logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        return picked, self.value_head(out.hidden_states[-1]).mean()

    def passes(self, ids):
        with torch.no_grad():
            reference, _ = self.logps(ids)
        with self.policy.disable_adapter():
            policy, value = self.logps(ids)
        return policy, reference, value

    def forward(self, ids):
        policy, reference, value = self.passes(ids)
        return {"loss": (policy - reference).exp().mean() + value}


class SoundGRPO(GRPO):
    def passes(self, ids):
        with torch.no_grad(), self.policy.disable_adapter():
            reference, _ = self.logps(ids)
        policy, value = self.logps(ids)
        return policy, reference, value


def broken():
    return Example(GRPO(), {"ids": torch.tensor([[1, 2, 3, 4]])})


def fixed():
    return Example(SoundGRPO(), {"ids": torch.tensor([[1, 2, 3, 4]])})
