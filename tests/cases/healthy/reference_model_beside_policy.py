"""DPO with a whole second model as reference, the same architecture with the same weights, in eval mode."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.rules import Example


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )


class DPO(nn.Module):
    def __init__(self):
        super().__init__()
        self.policy = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        self.reference = llama().eval().requires_grad_(False)

    @staticmethod
    def logp(model, ids):
        return model(input_ids=ids).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).sum()

    @torch.inference_mode()
    def reference_margin(self, chosen, rejected):
        return (self.logp(self.reference, chosen) - self.logp(self.reference, rejected)).item()

    def forward(self, chosen, rejected):
        margin = self.logp(self.policy, chosen) - self.logp(self.policy, rejected)
        return {"loss": -nn.functional.logsigmoid(margin - self.reference_margin(chosen, rejected))}


def healthy():
    return Example(DPO(), {"chosen": torch.tensor([[1, 2, 3]]), "rejected": torch.tensor([[1, 2, 9]])})
