"""`peft-inspect run` under torchrun: one report, by one process, and all of them end or go on together."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from conftest import launch  # noqa: E402
from test_rows import CAUSE as CAUSE_OF_ROWS  # noqa: E402

PROGRAM = HERE / "program.py"
CAUSE = next(number for number, line in enumerate(PROGRAM.read_text().splitlines(), 1) if line.endswith("# <- cause"))


def run(folder: Path, fault: str, *options: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    file = folder / "report.json"
    command = ("-m", "peft_inspect", "run", "--also", f"json={file}", *options, str(PROGRAM), fault, "--out", str(folder))
    ended = launch(*command)
    return ended, json.loads(file.read_text()) if file.exists() else None


def test_a_healthy_program_is_reported_once_and_trains_on_as_it_would_have(tmp_path: Path) -> None:
    ended, report = run(tmp_path, "none", "--keep-going")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("LoRA params with gradients: 8/8") == 1
    assert report["findings"] == []
    bare = tmp_path / "bare"
    bare.mkdir()
    assert launch(str(PROGRAM), "none", "--out", str(bare)).returncode == 0
    for rank in ("0.txt", "1.txt"):
        assert (tmp_path / rank).read_text() == (bare / rank).read_text()


def test_a_fault_stops_all_processes_with_one_report(tmp_path: Path) -> None:
    ended, report = run(tmp_path, "everywhere")
    assert ended.returncode == 1, ended.stderr
    (finding,) = report["findings"]
    assert (finding["code"], finding["source"]["line"]) == ("PI303", CAUSE)
    assert ended.stdout.count("PI303") == 1
    assert not (tmp_path / "0.txt").exists()


def test_a_fault_that_leaves_the_others_in_their_backward_is_told_by_the_process_that_has_it(tmp_path: Path) -> None:
    began = time.monotonic()
    ended, report = run(tmp_path, "one")
    assert ended.returncode == 1, ended.stderr
    (finding,) = report["findings"]
    assert (finding["code"], finding["source"]["line"]) == ("PI303", CAUSE)
    assert "found on rank 1 of 2, while rank 0 of 2 had not come out of the backward" in finding["message"]
    assert time.monotonic() - began < 200


@pytest.mark.parametrize("row", ["fsdp1", "fsdp1-flat", "fsdp2", "fsdp2-checkpoint", "tensor-parallel"])
def test_so_it_is_where_weights_are_sharded_and_no_process_comes_out_of_its_backward(tmp_path: Path, row: str) -> None:
    file = tmp_path / "report.json"
    ended = launch("-m", "peft_inspect", "run", "--also", f"json={file}", str(HERE / "row.py"), row, "one")
    # the ten seconds of the processes, and what the launcher takes to end on a machine that is busy otherwise
    assert time.time() - file.stat().st_mtime < 10 + 10, "the processes ended long after the finding"
    assert ended.returncode == 1, ended.stderr
    (finding,) = json.loads(file.read_text())["findings"]
    assert (finding["code"], finding["source"]["file"], finding["source"]["line"]) == (
        "PI303",
        "tests/distributed/runtimes.py",
        CAUSE_OF_ROWS,
    )
    assert "found on rank 1 of 2" in finding["message"]


def test_where_the_watching_of_one_process_fails_all_of_them_train_on(tmp_path: Path) -> None:
    ended, report = run(tmp_path, "breaks")
    assert ended.returncode == 1  # of the launcher: 2 of each process
    assert report is None
    assert ended.stderr.count("not inspected: the watching failed on rank 1 of 2") >= 2
    assert (tmp_path / "0.txt").exists()
    assert (tmp_path / "1.txt").exists()
