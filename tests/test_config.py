"""The project's configuration: found, read, and refused with the closest known key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from peft_inspect.project.config import read_config
from peft_inspect.records import Expectations, InspectionError

PROJECT = """
[project]
name = "speech"

[tool.peft-inspect]
fail-on = "warning"
select = ["PI1", "PI3"]

[tool.peft-inspect.ignore]
PI103 = "both towers on purpose"

[tool.peft-inspect.targets.speech]
model = "train.py:build_model"
batch = "train.py:make_batch"
ignore = { PI208 = "no images here" }
expect = { adapter-layers = 192, trainable-parameters = [1_000, 2_000], gradients = "all" }

[tool.peft-inspect.targets.shape]
model = "arch:llama"
weights = "none"
fail-on = "error"
lora-fields = { target_modules = ["q_proj"], r = 4 }
config_fields = { num_hidden_layers = 2 }
expect = { trainable-parameters = 5 }
"""


def refusal(folder: Path, text: str) -> str:
    (folder / "peft-inspect.toml").write_text(text)
    with pytest.raises(InspectionError) as error:
        read_config(folder)
    return str(error.value)


def test_targets_and_what_holds_for_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    config = read_config(tmp_path)
    speech, shape = config.targets["speech"], config.targets["shape"]
    assert (speech.request.model, speech.request.batch) == ("train.py:build_model", "train.py:make_batch")
    assert speech.ignore == {"PI103": "both towers on purpose", "PI208": "no images here"}
    assert (speech.select, speech.fail_on) == (("PI1", "PI3"), "warning")
    assert speech.expect == Expectations(192, (1000, 2000), "all")
    assert shape.request.lora_fields == {"target_modules": ["q_proj"], "r": 4}
    assert shape.request.config_fields == {"num_hidden_layers": 2}
    assert (shape.fail_on, shape.expect.trainable_parameters) == ("error", (5, 5))


def test_the_nearest_file_counts_and_its_paths_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peft-inspect.toml").write_text('[targets.a]\nmodel = "train.py:build"\nlora = "arch:not-a-file"')
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "train.py").touch()
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)
    (below / "pyproject.toml").write_text('[project]\nname = "not ours"')
    monkeypatch.chdir(below)
    config = read_config(below)
    assert list(config.targets) == ["a"]
    assert config.targets["a"].request.model == f"{tmp_path / 'train.py'}:build"
    assert config.targets["a"].request.lora == "arch:not-a-file"


def test_another_repository_above_is_not_searched(tmp_path: Path) -> None:
    (tmp_path / "peft-inspect.toml").write_text('fail-on = "note"')
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    assert read_config(project).file is None


def test_no_configuration_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert read_config(tmp_path).targets == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('fail_on = "eror"', "one of error, warning, note, never"),
        ('failon = "error"', "unknown key 'failon'"),
        ('failon = "error"', "the closest is 'fail-on'"),
        ('[targets.a]\nmodell = "x"', "the closest is 'model'"),
        ("[targets.a]\nlora-fields = { r = 4 }", "names no model"),
        ('[targets.a]\nmodel = "x"\nexpect = { adapter_layer = 3 }', "the closest is 'adapter-layers'"),
        ('[targets.a]\nmodel = "x"\nexpect = { trainable-parameters = [5, 3] }', "[at least, at most]"),
        ('[targets.a]\nmodel = "x"\nexpect = { gradients = "some" }', "one of all"),
        ('[targets.a]\nmodel = "x"\nweights = "full"', "one of none, random, pretrained"),
        ("[targets.a]\nmodel = 3", "must be a text"),
        ("targets = 3", "must be a table"),
        ('[ignore]\nPI103 = ""', "with the reason of each"),
        ('ignore = ["PI103"]', "with the reason of each"),
        ("fail-on = ", "not valid TOML"),
        ('model = "x"', "it belongs in [targets.NAME]"),
        ('[targets.a]\nmodel = "x"\ntarget-modules = ["q_proj"]', "it belongs in lora-fields"),
        ('[targets.a]\nmodel = "x"\nadapter-layers = 4', "it belongs in expect"),
        ('[tool.peft-inspect]\nfail-on = "error"', "the keys stand without [tool.peft-inspect]"),
        ('fail-on = "error"\nfail_on = "note"', "says 'fail-on' twice"),
        ('[targets.""]\nmodel = "x"', "a target needs a name"),
        ('[ignore]\nPI999 = "why"', "ignore: no rule is called 'PI999'"),
        ('[targets.a]\nmodel = "x"\nselect = ["no-grad-regoin"]', "the closest are no-grad-region"),
        ('[targets.a]\nmodel = "x"\nexpect = { trainable-parameters = ["1", "2"] }', "a whole number, or [at least, at most]"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[tool.peft_inspect]\nfail-on = "error"', r"called \[tool.peft-inspect\], not \[tool.peft_inspect\]"),
        ('[tool]\npeft-inspect = "error"', "must be a table"),
    ],
)
def test_a_table_of_another_name_or_kind_is_not_passed_over(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(InspectionError, match=said):
        read_config(tmp_path)


def test_a_file_as_windows_writes_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "peft-inspect.toml").write_bytes(b'\xef\xbb\xbffail-on = "note"\r\n')
    assert read_config(tmp_path).fail_on == "note"


def test_only_paths_are_taken_from_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peft-inspect.toml").write_text('[targets.a]\nmodel = "train.py:build"\nweights = "random"\ntext = "train.py"')
    (tmp_path / "random").mkdir()
    (tmp_path / "train.py").touch()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    request = read_config(tmp_path / "below").targets["a"].request
    assert (request.model, request.weights, request.text) == (f"{tmp_path / 'train.py'}:build", "random", "train.py")


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InspectionError, match="no configuration file"):
        read_config(tmp_path, str(tmp_path / "other.toml"))
    (tmp_path / "other.toml").write_text('[targets.a]\nmodel = "arch:llama"')
    assert list(read_config(tmp_path, str(tmp_path / "other.toml")).targets) == ["a"]


def test_reading_it_needs_no_torch() -> None:
    code = "import sys, peft_inspect.project.targets, peft_inspect.lock; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
