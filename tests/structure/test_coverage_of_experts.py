"""Coverage of mixtures of experts and of models of several parts: rows add up, findings agree, and suggestions are short."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from peft_inspect.cli import app
from peft_inspect.inspection import inspect
from peft_inspect.records import Request

pytestmark = pytest.mark.filterwarnings("ignore")

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SMALL = {"num_hidden_layers": 4}


def tree(model, **fields):
    small = {} if model == "arch:glm46v" else SMALL
    return inspect(Request(model=model, lora_fields=fields, config_fields=small), "tree", select=["PI1"])


@pytest.mark.parametrize("model", ["arch:mixtral", "arch:qwen3_moe", "arch:deepseek_v3", "arch:gpt_oss", "arch:granitemoe"])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "gate"]], ids=str)
def test_the_rows_sum_to_what_is_adapted(model, targets):
    structure = tree(model, target_modules=targets).structure
    rows = sum(carried.layers for row in structure.coverage for carried in row.carried)
    assert rows == len({(layer.path, layer.parameter_name) for layer in structure.adapter_layers})


def test_a_router_that_holds_its_weight_itself_has_a_row():
    structure = tree("arch:mixtral", target_modules="all-linear").structure
    (row,) = [row for row in structure.coverage if row.kind == "parameter"]
    assert (row.name, row.routes, len(row.layers), len(row.adapted)) == ("mlp.gate.weight", True, 4, 4)


@pytest.mark.parametrize("targets", ["all-linear", [*SEVEN, "gate"]], ids=str)
def test_findings_of_one_run_suggest_one_config_that_leaves_nothing(targets):
    found = {finding.code: finding for finding in tree("arch:deepseek_v3", target_modules=targets).findings}
    assert found["PI105"].suggestion == found["PI106"].suggestion
    applied = tree("arch:deepseek_v3", **found["PI105"].suggestion)
    assert not {"PI105", "PI106"} & {finding.code for finding in applied.findings}
    assert not [row for row in applied.structure.coverage if row.name.startswith("mlp.") and not row.adapted and not row.routes]


def test_the_suggested_config_for_gpt_oss_is_bound_to_no_depth(tmp_path):
    file = tmp_path / "lora.json"
    arguments = ["arch:gpt_oss", "--config-set", "num_hidden_layers=4", "--target-modules", "all-linear", "--select", "PI1"]
    assert CliRunner().invoke(app, ["check", *arguments, "--suggest", str(file)]).exit_code in (0, 1)
    written = json.loads(file.read_text())
    assert sorted(written["target_modules"]) == ["k_proj", "o_proj", "q_proj", "v_proj"]
    deeper = inspect(Request(model="arch:gpt_oss", lora=str(file), config_fields={"num_hidden_layers": 6}), "tree", select=["PI1"])
    assert deeper.findings == ()


def test_names_that_only_the_vision_tower_has_are_told_with_those_of_the_language_model():
    """In GLM-4.6V the language model has one layer for gate and up."""
    (found,) = tree("arch:glm46v", target_modules=SEVEN).findings
    assert found.code == "PI103"
    assert "'gate_proj', 'up_proj' are not in base_model.model.model.language_model, which has 'gate_up_proj' instead" in found.message
    applied = tree("arch:glm46v", **found.suggestion)
    assert applied.findings == ()
    in_blocks = [row for row in applied.structure.coverage if row.tower.endswith("language_model") and row.kind == "linear"]
    assert all(row.adapted for row in in_blocks)
