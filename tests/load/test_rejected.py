"""Configs that PEFT rejects: each is explained, and the config that the message offers works."""

from __future__ import annotations

import json
import re

import pytest

from peft_inspect.records import InspectionError


def offered(message):
    """The settings after "A config that works:"."""
    text = message.partition("A config that works: ")[2]
    return {name: json.loads(value) for name, value in re.findall(r'(\w+)=(\[[^]]*\]|"(?:[^"\\]|\\.)*")', text)}


@pytest.mark.parametrize(
    ("model", "fields", "explained"),
    [
        ("arch:gpt2", {"target_modules": ["q_proj", "v_proj"]}, r"no module of GPT2LMHeadModel is called 'q_proj' or 'v_proj'.* c_attn"),
        ("arch:llama", {"target_modules": ["q_prj"]}, r"is called 'q_prj'"),
        ("arch:llama", {"target_modules": r"q_proj"}, r"is called 'q_proj'|"),
        ("arch:llama", {"target_modules": r"model\.layer\.\d+\..*proj"}, r"matches the regular expression"),
        ("arch:llama", {"target_modules": ["mlp", "q_proj"]}, r"reaches model.layers.0.mlp, a LlamaMLP, which PEFT cannot adapt"),
        ("arch:gpt_oss", {"target_modules": ["experts", "q_proj"]}, r"reaches model.layers.0.mlp.experts, a GptOssExperts"),
        ("arch:gpt_oss", {"target_parameters": ["experts.gate_up"]}, r"no parameter of GptOssForCausalLM ends in 'experts.gate_up'"),
        (
            "arch:mamba",
            {"target_modules": "all-linear"},
            r"passes the weights of 'out_proj' to a fused kernel \(backbone.layers.0.mixer.out_proj",
        ),
        ("arch:mamba2", {"target_modules": ["in_proj", "out_proj"]}, r"an adapter there would never run and PEFT refuses it"),
        ("arch:falcon_h1", {"target_modules": ["q_proj", "conv1d"]}, r"passes the weights of 'conv1d' to a fused kernel"),
        ("arch:mamba2", {"target_modules": ["q_proj", "o_proj"]}, r"is called 'o_proj' or 'q_proj'"),
        ("arch:deepseek_v3", {"target_modules": ["q_a_proj", "up_proj"]}, r"names one of two layers that the experts .* hold as one"),
        ("arch:convnext", {"target_modules": ["dwconv"]}, r"takes only ranks that are multiples of that, not 8"),
        (
            "arch:llama",
            {"target_modules": ["base_model.model.model.layers.0.self_attn.q_proj"]},
            r"works: target_modules=\[\"model.layers.0.self_attn.q_proj\"\]",
        ),
        ("arch:llama", {"target_modules": ["embed_token"]}, r"works: target_modules=\[\"embed_tokens\"\]"),
        ("arch:llama", {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["h"]}, r'layers_pattern=\["layers"\]'),
        ("arch:bert", {"target_modules": "all-linear", "task_type": "TOKEN_CLS"}, r"task_type=TOKEN_CLS does so with the head"),
    ],
)
def test_the_offered_config_works(load, model, fields, explained):
    if fields == {"target_modules": "q_proj"}:
        assert load(model, lora_fields=fields).requested["target_modules"] == ["q_proj"]
        return
    with pytest.raises(InspectionError, match=explained) as raised:
        load(model, lora_fields=fields)
    works = offered(str(raised.value))
    assert works
    rest = {name: value for name, value in fields.items() if not name.startswith("target_")}
    assert load(model, lora_fields={**rest, **works}).model.peft_config["default"]


@pytest.mark.parametrize(
    ("model", "asked", "works"),
    [
        ("arch:deepseek_v3", ["q_proj", "v_proj"], ["q_b_proj", "kv_b_proj"]),
        ("arch:gpt2", ["query_key_value", "up_proj"], ["c_attn", "c_fc"]),
        ("arch:gpt2", ["q_proj", "v_prj"], ["c_attn"]),
        ("arch:llama", ["Wqkv", "c_proj"], ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]),
        ("arch:t5", ["o_proj", "down_proj"], ["wo", "o"]),
    ],
)
def test_layers_that_do_the_work_of_each_entry_are_offered(load, model, asked, works):
    with pytest.raises(InspectionError) as raised:
        load(model, lora_fields={"target_modules": asked}, config_fields={"num_hidden_layers": 1})
    assert offered(str(raised.value)) == {"target_modules": works}


MIDDLE = r"model\.layers\.\d+\.self_attn\.(q|v)_proj"


@pytest.mark.parametrize(
    ("model", "pattern", "works"),
    [
        ("arch:gemma3", MIDDLE, r"model\.language_model\.layers\.\d+\.self_attn\.(q|v)_proj"),
        ("arch:gemma3", "^self_attn.q_proj|self_attn.v_proj$", r"model\.language_model\.(?:.*\.)?(?:self_attn.q_proj|self_attn.v_proj$)"),
        ("arch:llava", rf"language_model\.{MIDDLE}", r"(?:.*\.)?language_model\.layers\.\d+\.self_attn\.(q|v)_proj"),
        ("arch:qwen3", rf"base_model\.model\.{MIDDLE}", MIDDLE),
        ("arch:gpt2", r"h\.\d+\.attn\.c_attn", r"(?:.*\.)?h\.\d+\.attn\.c_attn"),
    ],
)
def test_an_expression_that_begins_elsewhere_than_the_paths_is_offered_with_their_beginning(load, model, pattern, works):
    with pytest.raises(InspectionError, match="has to match whole module paths, as ") as raised:
        load(model, lora_fields={"target_modules": pattern})
    assert offered(str(raised.value)) == {"target_modules": works}
    assert load(model, lora_fields={"target_modules": works}).model.peft_config["default"]


def test_dropout_on_parameters(load):
    fields = {"target_modules": ["q_proj"], "target_parameters": ["experts.down_proj"], "lora_dropout": 0.1}
    with pytest.raises(InspectionError, match=r"no dropout for target_parameters, and lora_dropout is 0.1.* lora_dropout=0.0$"):
        load("arch:mixtral", lora_fields=fields)


def test_an_empty_list_asks_for_nothing(load):
    with pytest.raises(InspectionError, match="PEFT has no default target_modules for LlamaForCausalLM: say which"):
        load("arch:llama", lora_fields={"target_modules": []})


def test_a_mamba_that_is_offered_targets_is_not_offered_dead_ones(load):
    """Its code multiplies by `dt_proj.weight` itself, so an adapter on dt_proj would never run."""
    with pytest.raises(InspectionError) as raised:
        load("arch:mamba", lora_fields={"target_modules": "all-linear"})
    assert offered(str(raised.value)) == {"target_modules": ["in_proj"]}


def test_targets_that_other_fields_drop_again(load):
    fields = {"target_modules": ["q_proj"], "layers_to_transform": [99]}
    with pytest.raises(
        InspectionError, match=r"all 32 modules that .* reaches .* are dropped by layers_to_transform=\[99\]: nothing is left to adapt"
    ):
        load("arch:llama", lora_fields=fields)
    fields = {"target_modules": ["q_proj"], "layers_to_transform": [0]}
    with pytest.raises(InspectionError, match=r"without layers_to_transform, or with indices of layers that .*: 4, 12, 20, 28"):
        load("arch:jamba", lora_fields=fields)
    fields = {"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]}
    with pytest.raises(InspectionError, match=r'are dropped by exclude_modules=\["q_proj"\].* works: .* without exclude_modules'):
        load("arch:llama", lora_fields=fields)


def test_an_architecture_without_default_targets_asks_for_them(load):
    with pytest.raises(
        InspectionError, match=r"PEFT has no default target_modules for Qwen3NextForCausalLM: say which, or --target-modules all-linear"
    ):
        load("arch:qwen3_next", lora_fields={"r": 8})


def test_a_task_that_the_model_cannot_do(load):
    with pytest.raises(
        InspectionError, match=r"task_type=CAUSAL_LM asks for what ViTForImageClassification does not have .*: leave task_type out"
    ):
        load("arch:vit", lora_fields={"target_modules": "q_proj", "task_type": "CAUSAL_LM"})


def test_a_name_outside_a_list_is_a_regular_expression_and_offered_as_a_list(load, tmp_path):
    (tmp_path / "lora.yaml").write_text("target_modules: q_proj\n")
    with pytest.raises(
        InspectionError, match=r'target_modules="q_proj" is a regular expression, since it is no list, and matches no'
    ) as raised:
        load("arch:llama", lora=str(tmp_path / "lora.yaml"))
    assert offered(str(raised.value)) == {"target_modules": ["q_proj"]}
