"""Whole training programs, unchanged, in processes of their own: a broken one is stopped with its cause, a healthy one after one step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def run(folder: Path, *command: str, before: tuple[str, ...] = (), options: tuple[str, ...] = (), **keywords: Any) -> Any:
    """`peft-inspect run`, in the folder of the programs, with the JSON report as `.report`, by model where there are several."""
    file = folder / "report.json"
    done: Any = subprocess.run(
        [*before, sys.executable, "-m", "peft_inspect", "run", "--also", f"json={file}", *options, *command],
        cwd=HERE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        **keywords,
    )
    done.report = json.loads(file.read_text()) if file.exists() else None
    return done


def line_of(program: str, cause: str) -> int:
    """The line that the program marks as the cause."""
    lines = (HERE / program).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(f"# <- cause {cause}"))


def codes(done: Any) -> list[str]:
    """What was found, as the assertion's message would want it."""
    assert done.report is not None, done.stdout + done.stderr
    return [finding["code"] for finding in done.report["findings"]]


HEALTHY = [("raw_loop.py",), ("trainer.py",), ("trainer.py", "fp16")]


@pytest.mark.parametrize("command", HEALTHY, ids=" ".join)
def test_a_healthy_program_is_answered_after_one_step(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = run(tmp_path, *command)
    assert (done.returncode, codes(done)) == (0, []), done.stdout + done.stderr
    gradients = done.report["gradients"]["lora"]
    assert gradients["with_grad"] == gradients["total"] > 0
    assert done.report["model"]["source"] == " ".join(command)
    assert done.report["batch"]["made_by"] == "the program"
    assert not [outcome for outcome in done.report["outcomes"] if outcome["status"] == "crashed"]
    assert "step 0" not in done.stdout
    assert done.stdout.rstrip().splitlines()[-1] != "no training step was seen"


BROKEN = [
    (("raw_loop.py", "frozen"), "PI302"),
    (("raw_loop.py", "no-grad"), "PI303"),
    (("trainer.py", "frozen"), "PI302"),
]


@pytest.mark.parametrize(("command", "code"), BROKEN, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_a_broken_program_is_stopped_with_its_cause(tmp_path: Path, command: tuple[str, ...], code: str) -> None:
    done = run(tmp_path, *command)
    assert done.returncode == 1, done.stdout + done.stderr
    assert code in codes(done)
