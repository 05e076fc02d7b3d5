"""The target table: what every entry of a config reached, in PEFT's own way of matching."""

import pytest
from peft import LoraConfig, get_peft_model
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from peft_inspect.records import Subject
from peft_inspect.rules.examples import tiny_classifier, tiny_llama
from peft_inspect.structure import read_structure

pytestmark = pytest.mark.filterwarnings("ignore")


def table(model, requested=None):
    (adapter,) = read_structure(Subject(model, "a test", requested=requested)).adapters
    return {(target.field, target.entry): target for target in adapter.targets}


def lora(base=None, **fields):
    return get_peft_model(base or tiny_llama(num_hidden_layers=4), LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], **fields}))


def tiny_deepseek():
    shape = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    experts = {"moe_intermediate_size": 16, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1}
    heads = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
    return DeepseekV3ForCausalLM(DeepseekV3Config(**shape, **experts, **heads, num_hidden_layers=3, first_k_dense_replace=1))


def test_entries_of_a_list_are_counted_one_by_one():
    rows = table(lora(target_modules=["q_proj", "layers.1.self_attn.v_proj", "nothing"]))
    assert {entry: len(row.matched) for (_, entry), row in rows.items()} == {"q_proj": 4, "layers.1.self_attn.v_proj": 1, "nothing": 0}
    assert rows["target_modules", "q_proj"].by_tower == {"base_model.model.model": 4}


def test_a_regular_expression_is_one_entry():
    rows = table(lora(target_modules=r".*\.[01]\.self_attn\.(q|v)_proj"))
    (row,) = rows.values()
    assert len(row.matched) == 4
    assert len(row.missed) == 4


def test_all_linear_is_one_entry_also_where_peft_has_replaced_it():
    rows = table(lora(tiny_llama(), target_modules="all-linear"))
    assert list(rows) == [("target_modules", "all-linear")]
    assert len(rows["target_modules", "all-linear"].matched) == 14


def test_what_limits_drop_is_told_from_what_no_name_reaches():
    rows = table(lora(layers_to_transform=[1, 9], exclude_modules=["layers.1.self_attn.v_proj"]))
    assert len(rows["target_modules", "q_proj"].matched) == 1
    assert len(rows["target_modules", "q_proj"].dropped) == 3
    assert rows["target_modules", "v_proj"].matched == ()
    assert len(rows["target_modules", "v_proj"].dropped) == 4
    assert len(rows["exclude_modules", "layers.1.self_attn.v_proj"].matched) == 1
    assert len(rows["layers_to_transform", "1"].matched) == 1
    nine = rows["layers_to_transform", "9"]
    assert (nine.matched, nine.missed, nine.closest) == ((), (), ("0", "1", "2", "3"))


def test_the_closest_names_say_whose_layer_it_is_only_where_several_have_one():
    rows = table(lora(tiny_deepseek(), target_modules=["o_proj", "v_proj", "gate_prj"]))
    assert rows["target_modules", "v_proj"].closest == ("kv_b_proj",)
    assert rows["target_modules", "gate_prj"].closest == ("gate_proj", "mlp.gate_proj", "shared_experts.gate_proj")


def test_pattern_keys_apply_where_peft_applies_them():
    rows = table(lora(rank_pattern={"layers.0.self_attn.q_proj": 8, "q_proj": 2}, alpha_pattern={"k_proj": 2}))
    assert len(rows["rank_pattern", "layers.0.self_attn.q_proj"].matched) == 1
    assert len(rows["rank_pattern", "q_proj"].matched) == 3
    assert rows["alpha_pattern", "k_proj"].matched == ()


def test_modules_to_save_name_what_they_wrapped():
    rows = table(lora(tiny_classifier(), modules_to_save=["score", "classifier"]))
    assert rows["modules_to_save", "score"].matched == ("base_model.model.score",)
    assert rows["modules_to_save", "classifier"].matched == ()


@pytest.mark.parametrize(
    ("entry", "near"), [("q_prj", "q_proj"), ("query", "q_proj"), ("qkv_proj", "q_proj"), ("fc2", "down_proj"), ("w3", "up_proj")]
)
def test_the_closest_name_is_spelt_alike_or_does_the_same_work(entry, near):
    rows = table(lora(target_modules=["o_proj", entry]))
    assert rows["target_modules", entry].closest[0] == near


def test_what_peft_rewrites_for_fused_experts_is_followed_back_to_the_request():
    """gate_proj becomes an expert parameter, and the dense and shared layers of that name are left out."""
    asked = {"target_modules": ["q_a_proj", "gate_proj", "up_proj", "down_proj"]}
    rows = table(lora(tiny_deepseek(), **asked), requested=asked)
    assert [entry for _, entry in rows] == asked["target_modules"]
    gate = rows["target_modules", "gate_proj"]
    assert len(gate.matched) == 2
    assert len(gate.rewritten) == 3
    assert gate.missed == ()


def test_coverage_tells_of_each_adapter():
    model = lora(layers_to_transform=[0, 1, 3])
    model.add_adapter("other", LoraConfig(target_modules=["q_proj"], rank_pattern={"layers.1.self_attn.q_proj": 16}, r=2))
    rows = {row.name: row.carried for row in read_structure(Subject(model, "a test")).coverage}
    assert [(one.adapter, one.layers, one.indices, one.ranks, one.parameters) for one in rows["self_attn.q_proj"]] == [
        ("default", 3, (0, 1, 3), (4,), 3 * 16 * 16),
        ("other", 4, (0, 1, 2, 3), (2, 16), 4 * 16 * 16),
    ]
    assert [one.adapter for one in rows["self_attn.v_proj"]] == ["default"]
    assert rows["self_attn.o_proj"] == ()


def test_coverage_tells_the_rank_that_peft_built_for_fused_experts():
    rows = {row.name: row.carried for row in read_structure(Subject(lora(tiny_deepseek(), target_modules="all-linear"), "a test")).coverage}
    assert {name: [one.ranks for one in rows[f"mlp.experts.{name}"]] for name in ("gate_up_proj", "down_proj")} == {
        "gate_up_proj": [(8,)],
        "down_proj": [(4,)],
    }


def test_coverage_tells_the_share_of_what_carries_an_adapter():
    model = lora()
    rows = {row.name: row for row in read_structure(Subject(model, "a test")).coverage}
    assert rows["self_attn.q_proj"].adapted_indices == (0, 1, 2, 3)
    assert rows["self_attn.q_proj"].adapted_parameters == rows["self_attn.q_proj"].parameters == 4 * 16 * 16
    assert rows["mlp.down_proj"].adapted == ()
    assert rows["lm_head"].head
    assert sum(row.parameters for row in rows.values()) <= sum(parameter.numel() for parameter in model.parameters())
