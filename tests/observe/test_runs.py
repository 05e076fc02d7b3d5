"""What a forward that cannot run says, and what to do about it."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, LlamaConfig, LlamaForCausalLM

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


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
def test_an_embedding_that_peft_ties_as_a_linear_layer_is_told():
    config = BartConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, vocab_size=32,
    )  # fmt: skip
    lora = LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"], ensure_weight_tying=True)
    model = get_peft_model(BartForConditionalGeneration(config), lora)
    with pytest.raises(InspectionError, match=r"PEFT trains a Linear in the place of this \w*Embedding, because ensure_weight_tying"):
        peft_inspect.gradcheck(model)
