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


def line_of(program: str, cause: str) -> int | None:
    """The line that the program marks as the cause; None where no line is."""
    lines = (HERE / program).read_text().splitlines()
    return next((number for number, line in enumerate(lines, 1) if cause in line.partition("# <- cause ")[2].split(", ")), None)


def require(command: tuple[str, ...]) -> None:
    """Skip a program of a package that is not installed."""
    if command[0] in NEEDS:
        pytest.importorskip(NEEDS[command[0]])


def codes(done: Any) -> list[str]:
    """What was found, as the assertion's message would want it."""
    assert done.report is not None, done.stdout + done.stderr
    return [finding["code"] for finding in done.report["findings"]]


HEALTHY = [
    ("raw_loop.py",),
    ("-m", "raw_loop"),
    ("trainer.py",),
    ("trainer.py", "fp16"),
    ("lightning_fit.py",),
    ("lightning_fit.py", "manual"),
    ("trl_trainers.py", "sft"),
    ("trl_trainers.py", "dpo"),
    ("trl_trainers.py", "grpo"),
    ("accelerated.py",),
    ("denoising.py",),
    ("alternation.py",),
    ("optimizers.py", "in_backward"),
    ("optimizers.py", "by_hand"),
    ("optimizers.py", "closure"),
    ("optimizers.py", "warmup"),
    ("resumed.py", "healthy"),
    ("unadapted.py", "first"),
    ("with_hydra.py", "lr=0.01"),
    ("with_fire.py", "--lr=0.01"),
    ("sentence_pairs.py",),
]
NEEDS = {"with_hydra.py": "hydra", "with_fire.py": "fire", "sentence_pairs.py": "sentence_transformers"}
WITHOUT_A_LINE = {"PI313"}  # what is wrong there, no line does


@pytest.mark.parametrize("command", HEALTHY, ids=" ".join)
def test_a_healthy_program_is_answered_after_one_step(tmp_path: Path, command: tuple[str, ...]) -> None:
    require(command)
    done = run(tmp_path, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [finding for finding in done.report["findings"] if finding["severity"] == "error"] == []
    gradients = done.report["gradients"]["lora"]
    assert gradients["with_grad"] == gradients["total"] > 0
    assert done.report["model"]["source"] == " ".join(command)
    assert done.report["batch"]["made_by"] == "the program"
    assert done.report["steps"]["watched"] == 1
    assert not [outcome for outcome in done.report["outcomes"] if outcome["status"] == "crashed"]
    assert "step 1" not in done.stdout
    assert "trained to the end" not in done.stdout


BROKEN = [  # the program, its rule, whether a fix is tried in a later step of it
    (("raw_loop.py", "frozen"), "PI302", True),
    (("raw_loop.py", "no-grad"), "PI303", True),
    (("raw_loop.py", "detached"), "PI305", True),
    (("raw_loop.py", "nan"), "PI315", False),
    (("raw_loop.py", "zero"), "PI310", False),
    (("trainer.py", "frozen"), "PI302", True),
    (("lightning_fit.py", "detached"), "PI305", True),
    (("lightning_fit.py", "manual", "detached"), "PI305", True),
    (("trl_trainers.py", "sft", "disabled"), "PI205", True),
    (("accelerated.py", "optimizer-first"), "PI317", False),
    (("alternation.py", "sampled"), "PI306", False),
    (("optimizers.py", "cleared"), "PI503", False),
    (("optimizers.py", "bf16"), "PI501", False),
    (("optimizers.py", "clipped"), "PI502", False),
    (("optimizers.py", "unwarmed"), "PI502", False),
    (("optimizers.py", "emptied"), "PI317", False),
    (("optimizers.py", "unstepped"), "PI502", False),
    (("optimizers.py", "scaled"), "PI315", False),
    (("unadapted.py", "copied"), "PI112", False),
    (("unadapted.py", "forgotten"), "PI112", False),
    (("values.py", "log_of_zero"), "PI315", False),
    (("values.py", "root_of_zero"), "PI315", False),
    (("values.py", "underflow"), "PI314", False),
    (("values.py", "distilled"), "PI318", False),
    (("values.py", "ignored"), "PI313", False),
    (("values.py", "thread", "hooked"), "PI310", False),
    (("with_hydra.py", "fault=detached"), "PI305", True),
    (("with_fire.py", "--fault=detached"), "PI305", True),
    (("sentence_pairs.py", "frozen"), "PI302", True),
    (("compiled.py", "wrapper", "detached"), "PI305", True),
    (("compiled.py", "function", "detached"), "PI305", True),
    (("resumed.py", "inference"), "PI301", False),
    (("resumed.py", "lost"), "PI401", False),
]


@pytest.mark.parametrize("kind", ["sometimes", "gated"])
def test_zeros_of_the_first_step_alone_are_no_fault(tmp_path: Path, kind: str) -> None:
    done = run(tmp_path, "values.py", kind)
    assert (done.returncode, codes(done), done.report["steps"]["watched"]) == (0, [], 2), done.stdout + done.stderr


@pytest.mark.parametrize(("command", "code", "tried"), BROKEN, ids=lambda value: " ".join(value) if isinstance(value, tuple) else None)
def test_a_broken_program_is_stopped_with_its_cause(tmp_path: Path, command: tuple[str, ...], code: str, tried: bool) -> None:
    require(command)
    done = run(tmp_path, *command)
    assert done.returncode == 1, done.stdout + done.stderr
    assert [finding["code"] for finding in done.report["findings"] if finding["severity"] == "error"] == [code]
    finding = next(finding for finding in done.report["findings"] if finding["code"] == code)
    line = line_of(command[0], command[-1])
    if line is None:
        assert code in WITHOUT_A_LINE
    else:
        assert (finding["source"]["file"], finding["source"]["line"]) == (command[0], line)
    if tried:
        assert finding["fix_verified"] is True
        assert f"verified in step {finding['tried_in_step']}: " in done.stdout
        assert finding["tried_in_step"] == done.report["steps"]["watched"] > 1
    assert "trained to the end" not in done.stdout
