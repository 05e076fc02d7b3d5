"""What the rules on coverage find where an architecture is built in its own way: real types, at full size, without weights."""

from __future__ import annotations

from typing import Any

import pytest

from peft_inspect.api import inspect
from peft_inspect.records import Finding, Request

pytestmark = pytest.mark.filterwarnings("ignore")

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
FOUND: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "attention alone, in a model whose classes are called after its experts": (
        "arch:qwen3_moe",
        {"target_modules": ATTENTION},
        {"PI105": "note"},
    ),
    "mixers whose class is called after the experts": (
        "arch:granitemoehybrid",
        {"target_modules": ATTENTION},
        {"PI104": "warning", "PI105": "note"},
    ),
    "a router that is a layer within the module that routes": (
        "arch:afmoe",
        {"target_modules": ["q_proj", "gate"]},
        {"PI105": "warning", "PI106": "warning"},
    ),
    "one of several blocks that share their weights, as one finding": (
        "arch:zamba",
        {"target_modules": ATTENTION, "layers_to_transform": [0, 1, 2, 3]},
        {"PI111": "note"},
    ),
    "a list for the language model that is a full list of the vision tower too": (
        "arch:mistral3",
        {"target_modules": [*ATTENTION, "gate_proj", "up_proj", "down_proj"]},
        {"PI103": "warning"},
    ),
    "a part of a task's head that the masked language model has too": (
        "arch:modernbert",
        {"target_modules": ["Wqkv"], "task_type": "SEQ_CLS"},
        {},
    ),
    "a router beside experts in a dict": (
        "arch:switch_transformers",
        {"target_modules": ["q", "v", "classifier"]},
        {"PI106": "warning"},
    ),
    "mixers that are excluded on purpose": (
        "arch:jamba",
        {"target_modules": ATTENTION, "exclude_modules": r".*\.mamba\..*"},
        {"PI105": "note"},
    ),
    "a head that no pretraining brings": ("arch:convnext", {"target_modules": ["pwconv1"]}, {"PI113": "warning"}),
    "experts in a dict under numbered names": ("arch:nllb-moe", {"target_modules": ["q_proj", "v_proj"]}, {}),
    "a dropout among experts in a dict": ("arch:nllb-moe", {"target_modules": ["q_proj", "classifier"]}, {"PI106": "warning"}),
}


def found(model: str, fields: dict[str, Any]) -> dict[str, Finding]:
    """The findings on coverage by their code; one fault is one finding."""
    findings = inspect(Request(model=model, lora_fields=fields), "tree", select=["PI1"]).findings
    assert len({finding.code for finding in findings}) == len(findings)
    return {finding.code: finding for finding in findings}


@pytest.mark.parametrize(("model", "fields", "expected"), FOUND.values(), ids=list(FOUND))
def test_what_is_found(model: str, fields: dict[str, Any], expected: dict[str, str]) -> None:
    assert {code: finding.severity.value for code, finding in found(model, fields).items()} == expected
