"""`check --suggest` writes a LoRA config on which the finding is gone."""

import json

import pytest
from typer.testing import CliRunner

from peft_inspect.api import inspect
from peft_inspect.cli import app
from peft_inspect.records import Finding, Request, Severity
from peft_inspect.suggest import corrected

TINY = [f"--config-set={field}" for field in ("num_hidden_layers=2", "hidden_size=32", "intermediate_size=64", "vocab_size=64")]
PHI3 = [
    "check",
    "arch:phi3",
    *TINY,
    "--config-set=num_attention_heads=2",
    "--config-set=num_key_value_heads=2",
    "--config-set=pad_token_id=0",
]


def codes(*arguments):
    ran = CliRunner().invoke(app, [*PHI3, "--select", "PI1", "--format", "json", *arguments])
    assert ran.exit_code in (0, 1), ran.stderr
    return [finding["code"] for finding in json.loads(ran.stdout)["findings"]]


def test_the_suggested_config_mends_what_was_found(tmp_path):
    suggested = tmp_path / "lora.json"
    assert "PI101" in codes("--target-modules", "q_proj,k_proj,v_proj,o_proj", "--suggest", str(suggested))
    assert "qkv_proj" in json.loads(suggested.read_text())["target_modules"]
    assert "PI101" not in codes("--lora", str(suggested))


QKV = ["q_proj", "k_proj", "v_proj"]
FALCON = ["query_key_value"]
MLP = ["gate_proj", "up_proj", "down_proj"]


def findings(model, fields):
    """The findings on coverage of a type at its default size: code → finding."""
    return {found.code: found for found in inspect(Request(model=model, lora_fields=fields), "check", select=["PI1"]).findings}


SUGGESTED = {
    "a tower around another": ("PI103", "arch:sam", {"target_modules": "all-linear"}),
    "towers inside the language model": ("PI103", "arch:phi4_multimodal", {"target_modules": ["o_proj", "down_proj", "gate_up_proj"]}),
    "a regular expression of alternatives": ("PI103", "arch:llava", {"target_modules": r".*\.q_proj|.*\.v_proj"}),
    "heads excluded by the name of one": ("PI109", "arch:musicgen", {"target_modules": "all-linear", "exclude_modules": ["lm_head"]}),
    "a head that the task type does not know": ("PI113", "arch:bart", {"target_modules": ["q_proj"], "task_type": "SEQ_CLS"}),
    "a layer of mixers that read its weight": ("PI101", "arch:mamba2", {"target_modules": ["o_proj", "in_proj"]}),
    "heads that are a list of modules": ("PI110", "arch:musicgen", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "experts of a model without any": (
        "PI101",
        "arch:qwen3",
        {"target_modules": QKV, "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    ),
    "one name for both halves of a gated layer": ("PI101", "arch:mt5", {"target_modules": ["q", "v", "wi"]}),
    "a projector by the name of another architecture": (
        "PI110",
        "arch:llava",
        {"target_modules": r".*language_model.*\.(q|v)_proj", "modules_to_save": ["mm_projector"]},
    ),
    "a router by its parameter": ("PI106", "arch:qwen3_moe", {"target_modules": QKV, "target_parameters": ["mlp.gate.weight"]}),
    "a pattern for a module that holds layers": ("PI107", "arch:llama", {"target_modules": QKV, "rank_pattern": {"self_attn": 16}}),
    "embeddings under another name, tied": ("PI110", "arch:falcon", {"target_modules": FALCON, "modules_to_save": ["embed_tokens"]}),
    "a misspelt head, tied": ("PI101", "arch:falcon", {"target_modules": [*FALCON, "lm_haed"]}),
    "one side of a tie saved and the other adapted": (
        "PI111",
        "arch:falcon",
        {"target_modules": [*FALCON, "lm_head"], "modules_to_save": ["word_embeddings"]},
    ),
    "one layer for three": ("PI101", "arch:llama", {"target_modules": ["query_key_value", "o_proj"]}),
    "a layer of dense blocks and of experts": ("PI101", "arch:lfm2_moe", {"target_modules": [*QKV, *MLP]}),
    "a misspelt name and an excluded one": (
        "PI101",
        "arch:llama",
        {"target_modules": ["q_proj", "k_prj", "v_proj"], "exclude_modules": ["v_proj", "lm_head"]},
    ),
    "a layer that is saved in full": ("PI101", "arch:llama", {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["lm_head"]}),
    "a head outside all towers": ("PI103", "arch:gemma3", {"target_modules": [*QKV, *MLP, "embed_tokens", "lm_head"]}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("code", "model", "fields"), SUGGESTED.values(), ids=list(SUGGESTED))
def test_a_suggestion_is_accepted_mends_its_finding_and_raises_no_other(code, model, fields):
    found = findings(model, fields)
    changed = {field: value for field, value in {**fields, **found[code].facts["suggestion"]}.items() if value is not None}
    assert set(findings(model, changed)) <= set(found) - {code}


def test_what_a_note_shows_may_be_meant_and_stays_as_it_is():
    note = Finding("PI105", "a rule", Severity.NOTE, "", suggestion={"target_parameters": ["experts.w1"]})
    assert corrected({"target_modules": ["q_proj"]}, [note]) == {"target_modules": ["q_proj"]}


def test_what_one_finding_adds_is_kept_where_another_leaves_all_out():
    def suggesting(value):
        return Finding("PI101", "a rule", Severity.ERROR, "", suggestion={"target_parameters": value})

    config = {"target_parameters": ["experts.w1"]}
    assert corrected(config, [suggesting(None)]) == {"target_parameters": None}
    assert corrected(config, [suggesting(None), suggesting(["experts.w1", "experts.gate_up_proj"])]) == {
        "target_parameters": ["experts.gate_up_proj"]
    }


@pytest.mark.filterwarnings("ignore")
def test_a_regular_expression_that_peft_resolved_into_a_list_is_still_none():
    """PEFT does so for types whose experts it knows under old names."""
    found = findings("arch:qwen3_next", {"target_modules": r".*self_attn\.(?:q_proj|v_proj)"})
    assert "PI104" in found
    assert found["PI104"].facts["suggestion"] == {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("beside", "severity"), [("lm_head", Severity.NOTE), ("mlp.gate", Severity.WARNING)])
def test_experts_are_missed_only_where_more_of_the_blocks_than_attention_was_asked_for(beside, severity):
    assert findings("arch:mixtral", {"target_modules": ["q_proj", "v_proj", beside]})["PI105"].severity is severity


@pytest.mark.filterwarnings("ignore")
def test_the_parts_of_a_module_that_is_saved_as_a_whole_are_not_added():
    fields = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}
    assert findings("arch:csm", fields)["PI111"].facts["suggestion"] == {}


@pytest.mark.filterwarnings("ignore")
def test_a_projector_that_was_asked_for_stays_where_one_tower_is_kept():
    fields = {"target_modules": ["q_proj", "linear_1", "linear_2"]}
    changed = found_names("arch:llava", findings("arch:llava", fields)["PI103"].facts["suggestion"])
    assert {name.rpartition(".")[2] for name in changed} == {"q_proj", "linear_1", "linear_2"}
    assert not any("vision_tower" in name for name in changed)


@pytest.mark.filterwarnings("ignore")
def test_the_router_is_no_part_of_the_tower_that_is_kept():
    suggestion = findings("arch:llama4", {"target_modules": "all-linear"})["PI103"].facts["suggestion"]
    assert "router" not in suggestion["target_modules"]


@pytest.mark.filterwarnings("ignore")
def test_what_was_asked_for_is_shown_as_it_was_written():
    """PEFT puts the embedding in the place of the head, in the list that it was given."""
    fields = {"target_modules": FALCON, "modules_to_save": ["lm_head"], "ensure_weight_tying": True}
    report = inspect(Request(model="arch:falcon", lora_fields=fields), "check", select=["PI1"])
    assert not report.findings
    assert [target.entry for target in report.structure.adapters[0].targets if target.field == "modules_to_save"] == ["lm_head"]
    assert fields["modules_to_save"] == ["lm_head"]


def found_names(model, fields):
    """The names of the layers that a config reaches."""
    return [layer.name for layer in inspect(Request(model=model, lora_fields=fields), "tree").structure.adapter_layers]
