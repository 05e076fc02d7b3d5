"""DPO against a registered reference model that is an unfrozen, adapted copy: only no_grad keeps it still."""

import copy

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from transformers import MistralConfig, MistralForCausalLM

from peft_inspect.rules import Example

FIXED_DEAD = 8


class DPO(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
        lm = MistralForCausalLM(MistralConfig(num_attention_heads=2, num_key_value_heads=2, **sizes))
        self.policy = get_peft_model(lm, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        self.reference = copy.deepcopy(self.policy).eval()

    def forward(self, chosen, rejected):
        def logp(model, ids):
            return -model(ids, labels=ids).loss

        with torch.no_grad():
            base = logp(self.reference, chosen) - logp(self.reference, rejected)
        return {"loss": -F.logsigmoid(0.1 * (logp(self.policy, chosen) - logp(self.policy, rejected) - base))}


def healthy():
    return Example(DPO(), {"chosen": torch.randint(3, 40, (2, 6)), "rejected": torch.randint(3, 40, (2, 6))})
