"""A program under watch is run as Python itself runs it, stopped past everything it catches, or left alone to the last bit."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("test_programs_run", HERE / "test_programs.py")
programs: Any = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
spec.loader.exec_module(programs)  # type: ignore[union-attr]


def python(folder: Path, text: str, *arguments: str, options: tuple[str, ...] = (), **keywords: Any) -> Any:
    """A program of a few lines, beside the others."""
    (folder / "train.py").write_text(f"import sys\nsys.path.insert(1, {str(HERE)!r})\n{text}")
    return programs.run(folder, str(folder / "train.py"), *arguments, options=options, **keywords)


def bare(folder: Path) -> Any:
    """The same without us."""
    return subprocess.run(
        [sys.executable, str(folder / "train.py")],
        env={**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


LOOP = """
import torch
from tiny import IDS, trained, wrapped
torch.manual_seed(0)
model = wrapped()
optimizer = torch.optim.AdamW(trained(model), lr=1e-3)
def step():
    optimizer.zero_grad()
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    optimizer.step()
    return loss.item()
"""


def test_a_program_that_goes_on_trains_bit_for_bit_as_it_would_have_and_its_exit_code_is_passed_on(tmp_path: Path) -> None:
    text = LOOP + "import random\nrandom.seed(0)\nfor _ in range(11): print('loss', step(), random.random())\nsys.exit(7)\n"
    done = python(tmp_path, text, options=("--keep-going",))
    alone = bare(tmp_path)
    losses = [[line for line in output.splitlines() if line.startswith("loss")] for output in (done.stdout, alone.stdout)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 11
    assert (done.returncode, alone.returncode) == (7, 7)
    assert "no findings" in done.stdout


@pytest.mark.parametrize("way", ["wrapper", "method", "regional", "function"])
def test_what_is_compiled_stays_compiled_bit_for_bit(tmp_path: Path, way: str) -> None:
    done = programs.run(tmp_path, "compiled.py", way, options=("--keep-going",))
    alone = subprocess.run([sys.executable, "compiled.py", way], cwd=HERE, capture_output=True, text=True, check=False, timeout=240)
    losses = [[line for line in output.splitlines() if line.startswith("loss")] for output in (done.stdout, alone.stdout)]
    assert losses[0] == losses[1], done.stdout + done.stderr
    assert len(losses[0]) == 6
    assert losses[0][0].endswith("graphs 2" if way == "regional" else "graphs 1")
    assert done.report["gradients"]["lora"]["with_grad"] == 8
    assert done.report["steps"]["for"] == ["gradients and update"]


def test_nothing_is_left_in_a_process_that_goes_on(tmp_path: Path) -> None:
    text = """
import torch
from torch.nn.modules import module
from torch.optim import optimizer as optimizers
owners = torch.no_grad, torch.inference_mode, torch.set_grad_enabled, torch.nn.Module, torch.nn.Parameter, torch.amp.GradScaler
before = [dict(vars(owner)) for owner in owners]
replaced = torch.autograd.backward, torch.optim.Optimizer.zero_grad
"""
    text += (
        LOOP
        + """
step()
assert before == [dict(vars(owner)) for owner in owners]
assert (torch.autograd.backward, torch.optim.Optimizer.zero_grad) == replaced
assert not module._global_forward_hooks and not module._global_forward_pre_hooks
assert not optimizers._global_optimizer_pre_hooks and not optimizers._global_optimizer_post_hooks
assert torch._C._len_torch_dispatch_stack() == 0
assert not [finder for finder in sys.meta_path if "peft_inspect" in type(finder).__module__]
print("clean")
"""
    )
    done = python(tmp_path, text, options=("--keep-going",))
    assert "clean" in done.stdout, done.stderr


def test_a_program_that_swallows_everything_trains_no_further(tmp_path: Path) -> None:
    text = (
        LOOP
        + """
for number in range(5):
    try:
        step()
        print("trained", number)
    except:
        print("swallowed", number)
    finally:
        print("finally", number)
"""
    )
    done = python(tmp_path, text)
    assert done.returncode == 0, done.stderr
    assert "trained 1" not in done.stdout  # the step before has ended when its model runs again, and is judged then
    assert done.stdout.index("finally 4") < done.stdout.index("no findings")


def test_an_exception_before_a_step_is_shown_as_python_shows_it_and_then_one_line(tmp_path: Path) -> None:
    done = python(tmp_path, LOOP + "def broken():\n    raise KeyError('no such column')\nbroken()\n")
    assert done.returncode == 2
    *traceback, last = done.stderr.splitlines()
    assert traceback == bare(tmp_path).stderr.splitlines()
    assert last.startswith("peft-inspect: the program raised before a training step was seen")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("print('nothing')", "it never imported PEFT"),
        (LOOP + "sys.exit(3)", "the program left with exit code 3, and it called no model"),
        (LOOP + "with torch.no_grad(): model(input_ids=IDS)", "none was followed by a backward"),
    ],
    ids=["without PEFT", "without a call", "without a backward"],
)
def test_a_program_without_a_step_does_not_read_as_clean(tmp_path: Path, text: str, said: str) -> None:
    done = python(tmp_path, text)
    assert (done.returncode, done.report) == (2, None)
    assert "no training step was seen" in done.stderr
    assert said in done.stderr


def test_arguments_input_main_and_child_processes_are_those_of_the_program(tmp_path: Path) -> None:
    text = """
import dataclasses, multiprocessing, pickle
@dataclasses.dataclass
class Row:
    number: int
def double(row):
    return row.number * 2
if __name__ == "__main__":
    print(sys.argv[1:], __file__ == sys.argv[0], sys.path[0] == __file__.rpartition("/")[0], input())
    assert pickle.loads(pickle.dumps(Row(1))) == Row(1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(double, [Row(21)]))
"""
    done = python(tmp_path, text, "--config", "my.yaml", "--format", "x", input="typed\n")
    assert done.stdout.splitlines() == ["['--config', 'my.yaml', '--format', 'x'] True True typed", "[42]"], done.stderr


def test_an_installed_command_is_run_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "train-it"
    command.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(HERE)!r})\n{LOOP}step()\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    done = programs.run(tmp_path, "train-it", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert done.report["model"]["source"] == "train-it config.yaml"


def test_accelerate_launches_it(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", "--num_processes", "1", "-m", "peft_inspect"]
    done = subprocess.run(
        [*launch, "run", "--also", f"json={file}", "accelerated.py", "optimizer-first"],
        cwd=HERE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 1, done.stderr
    assert "PI317" in [finding["code"] for finding in json.loads(file.read_text())["findings"]]


def test_a_program_that_swallows_everything_for_ever_is_ended(tmp_path: Path) -> None:
    text = LOOP + "while True:\n    try:\n        step()\n    except BaseException:\n        continue\n"
    done = python(tmp_path, text)
    assert done.returncode == 0, done.stderr
    assert "no findings" in done.stdout


def test_what_is_recorded_instead_of_run_is_no_step(tmp_path: Path) -> None:
    text = """
import torch
from peft import LoraConfig, get_peft_model
model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)), LoraConfig(target_modules=["0"]))
traced = torch.jit.trace(model.eval(), torch.zeros(1, 4))
optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
traced(torch.ones(1, 4)).sum().backward()
optimizer.step()
model.train()(torch.ones(1, 4)).sum().backward()
optimizer.step()
"""
    done = python(tmp_path, text)
    assert done.returncode == 0, done.stderr
    assert done.report["gradients"]["lora"]["with_grad"] == 2


def test_an_interrupt_reaches_the_program(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import peft, time\ntry:\n    print('ready', flush=True)\n    time.sleep(100)\nfinally:\n    print('tidied')\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-m", "peft_inspect", "run", "train.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=100)
    assert (running.returncode, output) == (130, "tidied\n")
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert "peft_inspect" not in errors
