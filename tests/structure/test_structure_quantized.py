"""Quantised bases: names and coverage need neither the packages that made them nor a GPU."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_inspect.records import Subject
from peft_inspect.rules.examples import tiny_llama
from peft_inspect.structure import read_structure

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIGS = {
    "bnb 4-bit nf4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "bnb 8-bit": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "gptq 4-bit": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "awq 4-bit": {"quant_method": "awq", "bits": 4},
    "torchao": {"quant_method": "torchao", "quant_type": "int4_weight_only"},
    "hqq": {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}},
}


@pytest.mark.parametrize("label", CONFIGS)
def test_a_config_tells_how_weights_that_are_not_there_are_stored(label):
    base = tiny_llama()
    base.config.quantization_config = CONFIGS[label]
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"]))
    structure = read_structure(Subject(model, "a test", weights="none"))
    stored = {parameter.module.rpartition("layers.0.")[2]: parameter.quantization for parameter in structure.parameters}
    assert stored["self_attn.q_proj.base_layer"] == stored["mlp.down_proj"] == label
    assert stored["input_layernorm"] is None
    assert structure.parameter["base_model.model.lm_head.weight"].quantization is None
    assert {parameter.quantization for parameter in structure.parameters if parameter.role == "adapter"} == {None}
    assert len(structure.adapter_layers) == 2


def test_a_packed_layer_counts_as_the_linear_layer_it_stands_for():
    class QuantLinear(nn.Module):
        def __init__(self):
            super().__init__()
            self.in_features, self.out_features = 16, 32
            self.register_buffer("qweight", torch.zeros(2, 32, dtype=torch.int32))

    model = tiny_llama()
    for layer in model.model.layers:
        layer.mlp.up_proj = QuantLinear()
    structure = read_structure(Subject(model, "a test"))
    (row,) = (row for row in structure.coverage if row.name == "mlp.up_proj")
    assert (row.kind, len(row.layers), row.parameters) == ("linear", 2, 2 * 16 * 32)
    assert structure.module["model.layers.0.mlp.up_proj"].kind == "linear"
