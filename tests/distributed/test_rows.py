"""Every row of docs/distributed.md in two processes: healthy it trains as it would have, broken it is named with its rank."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from names import DEEPSPEED, FAULTS, ROWS  # noqa: E402

Results = Callable[..., list[dict[str, Any]]]
CAUSE = next(number for number, line in enumerate((HERE / "runtimes.py").read_text().splitlines(), 1) if line.endswith("# <- cause"))
WEIGHTS = 8  # lora_A and lora_B of two projections in two layers
ELEMENTS = 8 * 8 * 16
WIDER = 2 * 2 * 8 * (16 + 32)


INSTALLED = find_spec("deepspeed") is not None
SKIP = pytest.mark.skipif(not INSTALLED, reason="DeepSpeed is not installed")
EVERY = [*ROWS, *(pytest.param(row, marks=SKIP) for row in DEEPSPEED)]

CASES = [(row, fault) for row in ROWS for fault in FAULTS[row]]
CASES += [pytest.param(row, fault, marks=SKIP) for row in DEEPSPEED for fault in FAULTS[row]]


def test_the_page_has_every_row() -> None:
    page = (HERE.parents[1] / "docs" / "distributed.md").read_text()
    assert [row for row in (*ROWS, *DEEPSPEED) if f"`{row}`" not in page] == []


def of(results: Results, row: str, fault: str) -> list[dict[str, Any]]:
    both = [rank[f"{row}:{fault}"] for rank in (results(*DEEPSPEED) if row in DEEPSPEED else results())]
    assert not any("error" in rank for rank in both), next(rank["error"] for rank in both if "error" in rank)
    return both


@pytest.mark.parametrize("row", EVERY)
def test_a_healthy_training_is_found_healthy_and_stays_bit_for_bit_what_it_was(results: Results, row: str) -> None:
    both = of(results, row, "healthy")
    for rank in both:
        assert rank["same"]
        assert (rank["findings"], rank["refused"]) == ([], "")
        seen = rank["seen"]["Classifier"]
        assert (seen["rows"], seen["parameters"], seen["crashed"]) == (WEIGHTS, WIDER if row == "tensor-parallel" else ELEMENTS, [])
        assert set(seen["states"]) <= {"ok", "zero-at-init"}
        assert all(path.startswith("tower.base_model.model.layers.") and path.endswith(".default.weight") for path in seen["paths"])
    assert both[0]["seen"] == both[1]["seen"]


@pytest.mark.parametrize("row", [row for row in ROWS if row.startswith(("ddp-un", "ddp-v", "fsdp1", "fsdp2-wh"))])
def test_gradients_are_as_large_as_they_are_over_all_processes(results: Results, row: str) -> None:
    as_whole = of(results, "ddp", "healthy")[0]["seen"]["Classifier"]["norms"]
    assert of(results, row, "healthy")[0]["seen"]["Classifier"]["norms"] == pytest.approx(as_whole, rel=1e-3)


@pytest.mark.parametrize(("row", "fault"), CASES)
def test_a_fault_is_named_by_all_processes_and_ends_them_together(results: Results, row: str, fault: str) -> None:
    both = of(results, row, fault)
    for rank in both:
        findings = rank["findings"]
        assert {finding["code"] for finding in findings} == {"PI303"}
        assert len({path for finding in findings for path in finding["modules"]}) == 4
        assert any(finding["source"].endswith(f"runtimes.py:{CAUSE}") for finding in findings)
        assert len(findings) == 1
        assert findings[0]["message"].endswith("found on rank 1 of 2") == (fault == "one")
        assert rank["seconds"] < 10
    assert both[0]["findings"] == both[1]["findings"]
