"""What a forward that cannot run says, and what to do about it."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import peft_inspect
from peft_inspect.records import InspectionError

TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}


class Duplex(nn.Module):
    """A model of parts that is never called itself."""

    def __init__(self, config):
        super().__init__()
        self.thinker = LlamaForCausalLM(config)
        self.scales = nn.ParameterList()


def test_a_model_without_forward_names_its_parts_and_how_to_train_them():
    model = get_peft_model(Duplex(LlamaConfig(**TINY)), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(InspectionError, match=r"Duplex has no forward: .* parts, thinker \(LlamaForCausalLM\)\. Say how with --loss"):
        peft_inspect.gradcheck(model)


class Pair(nn.Linear):
    """A linear layer to PEFT, and none in what it returns."""

    def forward(self, x):
        return super().forward(x), x


class Routed(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = Pair(4, 4)

    def forward(self, x):
        return self.router(x)[0]


@pytest.mark.parametrize("weights", ["with values", "none"])
def test_a_layer_that_peft_cannot_adapt_is_named_with_what_to_leave_out(weights):
    with torch.device("meta" if weights == "none" else "cpu"):
        model = get_peft_model(Routed(), LoraConfig(target_modules=["router"]), low_cpu_mem_usage=weights == "none")
    with pytest.raises(InspectionError, match=r"its base layer is a Pair, .* --exclude-modules router"):
        peft_inspect.gradcheck(model, batch={"x": torch.ones(2, 4)})
