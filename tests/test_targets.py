"""`check` over a project's targets, `lock` and `check --locked`, as whole commands on real tiny models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest
import yaml
from peft import LoraConfig, get_peft_model

import peft_inspect
from peft_inspect.lock import locked, read_lock
from peft_inspect.rules.examples import tiny_llama

TRAIN = """
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

SHAPE = dict(vocab_size=64, hidden_size=16, intermediate_size=32, num_attention_heads=2, num_key_value_heads=2)

def healthy():
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, num_hidden_layers=2))
    return get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"])).train()

def frozen():
    return healthy().requires_grad_(False)
"""
CONFIG = """
[ignore]
PI103 = "on purpose"

[targets.good]
model = "train.py:healthy"
expect = { adapter-layers = 4, trainable-parameters = [1, 5000], gradients = "all" }

[targets.bad]
model = "train.py:frozen"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "peft-inspect.toml").write_text(CONFIG)
    return tmp_path


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "peft_inspect", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_all_targets_are_checked_and_the_red_one_decides(project: Path) -> None:
    done = call(project, "check", "--no-verify")
    assert done.returncode == 1, done.stderr
    good, bad = done.stdout.split("── bad ──")
    assert "── good ──" in good
    assert "LoRA params with gradients: 8/8" in good
    assert "PI103 (on purpose)" in good
    assert "PI302 frozen-after-wrapping" in bad
    assert bad.splitlines()[-1] == "1 of 2 targets failed: bad"


def test_processes_give_one_json_object_with_every_target(project: Path) -> None:
    done = call(project, "check", "-j", "2", "--format", "json", "--no-verify")
    assert done.returncode == 1, done.stderr
    targets = json.loads(done.stdout)["targets"]
    assert list(targets) == ["good", "bad"]
    assert targets["good"]["findings"] == []
    assert [finding["code"] for finding in targets["bad"]["findings"]] == ["PI302"]


def test_one_target_by_its_name_and_an_expectation_that_does_not_hold(project: Path) -> None:
    (project / "peft-inspect.toml").write_text(CONFIG.replace("adapter-layers = 4", "adapter-layers = 224"))
    done = call(project, "check", "good", "--format", "junit")
    assert done.returncode == 1, done.stderr
    cases = {case.get("name"): case for case in ET.fromstring(done.stdout).iter("testcase")}
    failure = cases["PI001 expectation-not-met"].find("failure")
    assert failure is not None
    assert failure.get("message") == "224 adapter layers are expected, and there are 4"


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_a_target_that_cannot_be_inspected_neither_hides_the_others_nor_is_hidden(project: Path, jobs: str) -> None:
    """One names nothing, one raises with hostile words, and one ends its very process."""
    lost = {"lost": "nothing", "hostile": "raises", "dead": "dies"}
    more = "".join(f'\n[targets.{name}]\nmodel = "train.py:{callable_}"\n' for name, callable_ in lost.items())
    (project / "peft-inspect.toml").write_text(CONFIG + more)
    (project / "train.py").write_text(
        TRAIN + "\ndef raises():\n    raise ValueError('100%\\n::error::no')\n\ndef dies():\n    import os\n    os._exit(0)\n"
    )
    also = [f"--also={name}={name}.out" for name in ("json", "junit", "github", "markdown", "text")]
    done = call(project, "check", "-j", jobs, "--format", "sarif", "--no-verify", *also)
    assert done.returncode == 2
    written = {name: (project / f"{name}.out").read_text() for name in ("json", "junit", "github", "markdown", "text")}
    assert [run["automationDetails"]["id"] for run in json.loads(done.stdout)["runs"]] == ["peft-inspect/good/", "peft-inspect/bad/"]
    reports = json.loads(written["json"])
    assert (list(reports["targets"]), list(reports["failed"])) == (["good", "bad"], list(lost))
    schema = json.loads((Path(peft_inspect.__file__).parent / "formats" / "report.schema.json").read_text())
    jsonschema.Draft202012Validator({**schema, **schema["$defs"]["several"], "$id": "several", "properties": {}}).validate(reports)
    assert all(name in done.stderr and f"{name} could not be inspected" in written["github"] for name in lost)
    assert "dead: train.py:dies ended its process before it was inspected (exit code 0)" in done.stderr
    assert len([line for line in written["github"].splitlines() if line.startswith("::error")]) == 4
    suites = {suite.get("name"): suite.get("errors") for suite in ET.fromstring(written["junit"])}
    assert suites == {"good": "0", "bad": "0", "lost": "1", "hostile": "1", "dead": "1"}
    said = "1 of 5 targets failed: bad; 3 of 5 could not be inspected: lost, hostile, dead"
    assert written["markdown"].count("could not be inspected") == written["text"].count("could not be inspected") == 3 + 1
    assert (written["text"].splitlines()[-1], written["markdown"].splitlines()[-1]) == (said, f"**{said}**")


def test_what_one_target_imports_is_no_business_of_the_next(tmp_path: Path) -> None:
    """Two trainings, each with a module of the same name beside it."""
    for folder, layers in (("chat", 1), ("speech", 3)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "shape.py").write_text(f"LAYERS = {layers}")
        (tmp_path / folder / "train.py").write_text(
            "from shape import LAYERS\n" + TRAIN.replace("num_hidden_layers=2", "num_hidden_layers=LAYERS")
        )
    targets = (f'[targets.{folder}]\nmodel = "{folder}/train.py:healthy"\n' for folder in ("chat", "speech"))
    (tmp_path / "peft-inspect.toml").write_text("".join(targets))
    assert call(tmp_path, "lock").returncode == 0
    lock = json.loads((tmp_path / "peft-inspect.lock").read_text())["targets"]
    assert {name: target["adapters"]["default"]["layers"] for name, target in lock.items()} == {"chat": 2, "speech": 6}


def test_ctrl_c_ends_all_processes_in_one_line(project: Path) -> None:
    (project / "train.py").write_text(TRAIN + "\ndef slow():\n    import time\n    print('building', flush=True)\n    time.sleep(600)\n")
    (project / "peft-inspect.toml").write_text("".join(f'[targets.{name}]\nmodel = "train.py:slow"\n' for name in "ab"))
    command = [sys.executable, "-W", "ignore", "-m", "peft_inspect", "check", "-j", "2"]
    with subprocess.Popen(
        command,
        cwd=project,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # ignored in the background
    ) as running:
        limit = threading.Timer(120, os.killpg, (running.pid, signal.SIGKILL))  # what ignores the signal would run for ten minutes
        limit.start()
        assert running.stderr is not None
        assert running.stderr.readline() == "building\n"
        os.killpg(running.pid, signal.SIGINT)
        said = running.stderr.read()  # ends when the last of the processes does
        limit.cancel()
    assert running.returncode == 130
    assert said.replace("building\n", "") == "peft-inspect: interrupted\n"


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, in code of PEFT
def test_a_target_is_checked_from_python_by_its_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert peft_inspect.check("good").findings == ()
    wrong = CONFIG.replace("adapter-layers = 4", "adapter-layers = 224")
    (project / "peft-inspect.toml").write_text(wrong)
    report = peft_inspect.check("good", select="PI112")
    assert [(finding.code, finding.facts["found"]) for finding in report.findings] == [("PI001", 4)]
    with pytest.raises(peft_inspect.InspectionError, match="did you mean the target 'good'"):
        peft_inspect.check("goood")
    with pytest.raises(peft_inspect.InspectionError, match="of its configuration"):
        peft_inspect.check("good", {"input_ids": None})


def test_a_misspelt_target_is_suggested(project: Path) -> None:
    assert "did you mean the target 'good'?" in call(project, "check", "goood").stderr


def test_what_the_project_pins_is_ignored_with_a_reason_and_explained(project: Path) -> None:
    wrong = CONFIG.replace("adapter-layers = 4", "adapter-layers = 224").replace("[ignore]", '[ignore]\nPI001 = "being moved"')
    (project / "peft-inspect.toml").write_text(wrong)
    done = call(project, "check", "good")
    assert done.returncode == 0, done.stdout
    assert "ignored: PI001 (being moved)" in done.stdout
    (project / "peft-inspect.toml").write_text(CONFIG)
    structure_only = call(project, "check", "good", "-v", "--select", "PI002")
    assert structure_only.returncode == 0
    assert "skipped: PI001 (gradients: no selected rule needed a batch)" in structure_only.stdout
    assert "`expect` in the configuration" in call(project, "explain", "PI001").stdout
    assert "peft-inspect lock" in call(project, "explain", "lock-changed").stdout


def test_the_script_of_the_github_action_writes_annotations_summary_and_sarif_in_one_run(project: Path) -> None:
    script = Path(__file__).parents[1] / ".github" / "peft-inspect" / "check.sh"
    inputs = {"MODEL": "bad", "SARIF": "report.sarif", "ARGUMENTS": "--no-verify\n--select\nPI3\n"}
    done = subprocess.run(
        ["bash", str(script)],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            **{f"PEFT_INSPECT_{name}": value for name, value in inputs.items()},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": str(project / "summary.md"),
            "PYTHONWARNINGS": "ignore",
        },
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("::error file=train.py,line=13,title=PI302 frozen-after-wrapping::")
    assert "## peft-inspect: 1 error" in (project / "summary.md").read_text()
    assert json.loads((project / "report.sarif").read_text())["runs"][0]["results"][0]["ruleId"] == "PI302"


def test_the_github_action_installs_every_word_and_evaluates_none(tmp_path: Path) -> None:
    steps = yaml.safe_load((Path(__file__).parents[1] / "action.yml").read_text())["runs"]["steps"]
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", steps[0]["run"]],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "PEFT_INSPECT_INSTALL": "-e .\n peft-inspect[lightning] $(exit 3) *"},
    )
    assert done.stdout.split("\n")[3:-1] == ["--quiet", "-e", ".", "peft-inspect[lightning]", "$(exit", "3)", "*"]


def test_what_is_accepted_fails_no_more_and_what_is_new_does(project: Path) -> None:
    written = call(project, "check", "--write-baseline", "known.json", "--no-verify")
    assert (written.returncode, written.stderr) == (0, "peft-inspect: wrote known.json: 1 accepted\n")
    assert written.stdout.splitlines()[-1] == "none of 2 targets failed"
    (project / "peft-inspect.toml").write_text('baseline = "known.json"\n' + CONFIG)
    done = call(project, "check", "bad", "--format", "sarif", "--also", "json=report.json")
    assert done.returncode == 0, done.stderr
    assert [result["suppressions"] for result in json.loads(done.stdout)["runs"][0]["results"]] == [[{"kind": "external"}]]
    report = json.loads((project / "report.json").read_text())
    assert ([finding["code"] for finding in report["accepted"]], report["findings"]) == (["PI302"], [])
    jsonschema.validate(report, json.loads((Path(peft_inspect.__file__).parent / "formats" / "report.schema.json").read_text()))
    (project / "train.py").write_text(TRAIN.replace('["q_proj", "v_proj"]', '["q_proj"]'))
    assert call(project, "check", "bad", "-q").returncode == 1


def test_a_target_is_drawn_and_its_gradients_are_checked_by_its_name(project: Path) -> None:
    done = call(project, "gradcheck", "bad", "-q")
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "train.py:frozen"), done.stderr
    done = call(project, "tree", "--depth", "0")
    assert done.returncode == 2
    assert "tree inspects one model: name one of the targets good, bad" in done.stderr
    (project / "peft-inspect.toml").write_text('fail-on = "note"\n[targets.only]\nmodel = "train.py:frozen"\n')
    done = call(project, "tree", "--depth", "0")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "train.py:frozen"), done.stderr


def test_without_model_and_targets_it_says_what_to_name(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    done = call(tmp_path, "check")
    assert done.returncode == 2
    assert "no MODEL" in done.stderr


def test_the_lock_catches_adapter_layers_that_were_renamed_and_lost(project: Path) -> None:
    """A new version of the model calls its projections otherwise: half of the targets find nothing any more."""
    written = call(project, "lock", "good")
    assert written.returncode == 0, written.stderr
    lock = json.loads((project / "peft-inspect.lock").read_text())
    assert lock["targets"]["good"]["adapters"]["default"]["modules"] == [
        "base_model.model.model.layers.0-1.self_attn.{q_proj,v_proj}: Linear, r=8, alpha=8"
    ]
    assert call(project, "check", "good", "--locked").returncode == 0

    renamed = TRAIN.replace(
        "    return get_peft_model(model,",
        "    for layer in model.model.layers:\n        layer.self_attn.value = layer.self_attn._modules.pop('v_proj')\n"
        "        layer.self_attn.forward = lambda hidden_states, **_: (hidden_states, None)\n    return get_peft_model(model,",
    )
    (project / "train.py").write_text(renamed)
    changed = call(project, "check", "good", "--locked", "--select", "PI112", "--format", "json")
    assert changed.returncode == 1, changed.stderr
    difference = next(finding["facts"]["difference"] for finding in json.loads(changed.stdout)["findings"] if finding["code"] == "PI002")
    assert '- "base_model.model.model.layers.0-1.self_attn.{q_proj,v_proj}: Linear, r=8, alpha=8"' in difference
    assert '+ "base_model.model.model.layers.0-1.self_attn.q_proj: Linear, r=8, alpha=8"' in difference


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, in code of PEFT
def test_the_order_in_which_modules_are_registered_does_not_change_the_lock() -> None:
    def built(*, reordered: bool) -> object:
        model = tiny_llama()
        for layer in model.model.layers if reordered else ():
            layer.self_attn.q_proj = layer.self_attn._modules.pop("q_proj")
        model = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"]))
        return locked(peft_inspect.check(model, select=("PI112",)).structure)

    assert built(reordered=False) == built(reordered=True)


def test_a_lock_that_is_missing_or_damaged_is_said(project: Path) -> None:
    missing = call(project, "check", "good", "--locked")
    assert missing.returncode == 2
    assert "peft-inspect lock" in missing.stderr
    damaged = {
        b"{}": "another version",
        b"[]": "is no lock file",
        b'{"schema": 1, "targets": {"good": 3}}': "is no lock file",
        b"<<<<<<< HEAD": "is no lock file",
        b"\xff": "cannot be read",
    }
    for content, said in damaged.items():
        (project / "peft-inspect.lock").write_bytes(content)
        with pytest.raises(peft_inspect.InspectionError, match=f"{said}.*peft-inspect lock"):
            read_lock(project / "peft-inspect.lock")
    done = call(project, "check", "good", "--locked")
    assert (done.returncode, done.stdout) == (2, "")
