"""A stock model that cannot run with LoRA on everything: Llama4's router is a Linear that returns a tuple."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Llama4ForCausalLM, Llama4TextConfig

import peft_inspect

pytestmark = pytest.mark.filterwarnings("ignore")

IDS = torch.tensor([[1, 2, 3]])
BATCH = {"input_ids": IDS, "labels": IDS}


def llama4(**lora):
    torch.manual_seed(0)
    config = Llama4TextConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        intermediate_size_mlp=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=2,
        num_experts_per_tok=1,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return get_peft_model(Llama4ForCausalLM(config), LoraConfig(r=2, **lora))


def test_a_forward_that_raises_in_an_adapter_layer_names_the_router() -> None:
    with pytest.raises(peft_inspect.InspectionError, match=r"layers\.0\.feed_forward\.router"):
        peft_inspect.check(llama4(target_modules="all-linear"), BATCH)


def test_without_the_router_the_model_is_healthy() -> None:
    model = llama4(target_modules="all-linear", exclude_modules=r".*\.router")
    assert peft_inspect.check(model, BATCH, select=("PI2", "PI3")).findings == ()
