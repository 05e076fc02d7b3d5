"""A fused loop over the experts reads their parameters: what target_parameters adapts is in no module's `weight`."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM

from peft_inspect.rules import Example
from tests.versions import FUSED, require

RULE, NAME = "PI201", "base-weight-used-directly"
LAYERS = r"lm\..*\.mlp\.experts(\.base_layer)?"
DEAD = 4
VERIFIED = True
LORA = {"r": 2, "target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}


def mixtral():
    require(*FUSED)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2}
    return MixtralForCausalLM(MixtralConfig(vocab_size=32, num_hidden_layers=1, num_local_experts=4, **sizes))


class AllExperts(nn.Module):
    """Every expert for every token, one after the other."""

    def __init__(self, lm):
        super().__init__()
        self.lm = lm
        self.head = nn.Linear(16, 2)

    def forward(self, input_ids, label):
        model = self.lm.base_model.model.model
        hidden = model.embed_tokens(input_ids)
        experts = model.layers[0].mlp.experts.get_base_layer()
        for gate_up, down in zip(experts.gate_up_proj, experts.down_proj, strict=True):
            gate, up = (hidden @ gate_up.T).chunk(2, -1)  # <- cause
            hidden = hidden + (gate * up) @ down.T
        return {"loss": nn.functional.cross_entropy(self.head(hidden.mean(1)), label)}


class Routed(AllExperts):
    """Through the block, whose forward puts the adapted parameters in place."""

    def forward(self, input_ids, label):
        model = self.lm.base_model.model.model
        hidden = model.layers[0].mlp(model.embed_tokens(input_ids))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        return {"loss": nn.functional.cross_entropy(self.head(hidden.mean(1)), label)}


batch = {"input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), "label": torch.tensor([1, 0])}


def broken():
    return Example(AllExperts(get_peft_model(mixtral(), LoraConfig(**LORA))), batch)


def fixed():
    return Example(Routed(get_peft_model(mixtral(), LoraConfig(**LORA))), batch)
