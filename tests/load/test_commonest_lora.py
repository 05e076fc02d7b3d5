"""The LoRA file that most people have: r 16, dropout 0.05, seven projections. It builds, or one message gives a config that does."""

from __future__ import annotations

import json
import re

import pytest
from peft.tuners.lora import LoraLayer

from peft_inspect.records import InspectionError

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
COMMONEST = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": SEVEN}
BUILT = ["llama", "qwen3", "gemma3_text", "llava", "phi3", "glm46v", "mixtral", "gpt_oss", "jamba", "mpt"]
TOLD = {
    "fused experts": ["qwen3_moe", "deepseek_v3", "olmoe", "ernie4_5_moe", "afmoe"],
    "other names": ["t5", "bert", "falcon", "gpt2", "bloom", "gpt_neox", "mamba"],
}


def suggested(message):
    """The fields of the config that a message says works."""
    text = message.partition("A config that works: ")[2]
    found = {}
    for field in re.finditer(r"(\w+)=", text.partition("; or ")[0]):
        found[field[1]] = json.JSONDecoder().raw_decode(text[field.end() :])[0]
    return found


@pytest.mark.parametrize("kind", BUILT)
def test_it_builds_where_there_are_such_names(load, kind):
    assert any(isinstance(module, LoraLayer) for module in load(f"arch:{kind}", lora_fields=COMMONEST, reduce=True).model.modules())


@pytest.mark.parametrize("kind", [kind for kinds in TOLD.values() for kind in kinds])
def test_elsewhere_one_message_gives_a_config_that_builds(load, kind):
    with pytest.raises(InspectionError, match="A config that works: ") as caught:
        load(f"arch:{kind}", lora_fields=COMMONEST, reduce=True)
    fields = suggested(str(caught.value))
    assert fields
    model = load(f"arch:{kind}", lora_fields={**COMMONEST, **fields}, reduce=True).model
    assert any(isinstance(module, LoraLayer) for module in model.modules())


def test_with_fused_experts_there_are_two_ways_out(load):
    with pytest.raises(InspectionError, match=r"the experts of Qwen3MoeForCausalLM are fused parameters here") as caught:
        load("arch:qwen3_moe", lora_fields=COMMONEST, reduce=True)
    first, _, second = str(caught.value).partition("; or without the experts, and with the dropout: ")
    assert first.endswith("lora_dropout=0.0")
    names = json.loads(second.removeprefix("target_modules="))
    assert names == SEVEN[:4]
    assert load("arch:qwen3_moe", lora_fields={**COMMONEST, "target_modules": names}, reduce=True)


def test_pefts_default_targets_do_not_hide_what_is_wrong(load):
    with pytest.raises(InspectionError, match=r"are dropped by layers_to_transform=99: nothing is left to adapt"):
        load("arch:llama", lora_fields={"target_modules": None, "layers_to_transform": 99, "r": 4}, reduce=True)
    with pytest.raises(InspectionError, match=r"PEFT has no default target_modules for"):
        load("arch:afmoe", lora_fields={"r": 4}, reduce=True)
