"""The pytest plugin in a project of its own, run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = ("-p", "peft_inspect.integrations.pytest")
USER_TESTS = """
import pytest

def model(freeze=False):
    from peft import LoraConfig, get_peft_model
    from peft_inspect.rules.examples import tiny_llama
    wrapped = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    return wrapped.requires_grad_(False) if freeze else wrapped

def test_fixture(assert_adapters_train):
    assert assert_adapters_train(model()).findings == ()

def test_function():
    from peft_inspect.integrations.pytest import assert_adapters_train
    from peft_inspect.rules.examples import text_batch
    with pytest.raises(AssertionError, match="PI302 frozen-after-wrapping"):
        assert_adapters_train(model(freeze=True), text_batch(), verify=False)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


def test_the_fixture_and_the_function_hold_a_model_to_training_its_adapters(tmp_path: Path) -> None:
    (tmp_path / "test_model.py").write_text(USER_TESTS)
    done = run(tmp_path, *PLUGIN)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_collecting_imports_neither_torch_nor_the_rules(tmp_path: Path) -> None:
    (tmp_path / "test_model.py").write_text(USER_TESTS)
    (tmp_path / "conftest.py").write_text(
        "import sys\nheavy = {'torch', 'transformers', 'peft', 'peft_inspect.api', 'peft_inspect.rules'}\n"
        "def pytest_collection_finish():\n    print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    done = run(tmp_path, *PLUGIN, "--collect-only")
    assert "heavy: []" in done.stdout, done.stdout


def test_the_plugin_is_registered_with_pytest() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"peft-inspect": "peft_inspect.integrations.pytest"}
