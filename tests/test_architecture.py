"""The arrows between the rooms, and what must stay cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "peft_inspect"
HEAVY = ("torch", "transformers", "peft", "numpy", "safetensors", "huggingface_hub")


SLOW_TO_START = ("multiprocessing", "importlib.metadata", "rich.markdown", "rich.syntax")


def imported_at_run_time(program, libraries=HEAVY):
    """Those of `libraries` that a program imports."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*[name for name in {libraries} if name in sys.modules])"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize(
    "program",
    [
        "import peft_inspect.api",
        "import peft_inspect.cli",
        "from peft_inspect.rules import all_rules; all_rules()",
        "import peft_inspect.formats.tree.drawing, peft_inspect.formats.json, peft_inspect.formats.text",
    ],
)
def test_nothing_heavy_is_imported_before_an_inspection(program):
    assert imported_at_run_time(program) == []


def test_help_imports_only_what_it_needs():
    """It is to take at most 2.5 times as long as importing typer and rich."""
    assert imported_at_run_time("import peft_inspect.cli", SLOW_TO_START) == []


def test_the_arrows_hold():
    """The contracts of pyproject.toml, by import-linter itself."""
    pytest.importorskip("importlinter")
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(lint), "--no-cache"], capture_output=True, text=True, check=False, cwd=PACKAGE.parent, timeout=120)
    assert done.returncode == 0, done.stdout


def modules():
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("room", ["records", "diagnose.py", "formats", "cli"])
def test_right_of_the_diagnosis_nobody_names_torch(room):
    files = [PACKAGE / room] if room.endswith(".py") else sorted((PACKAGE / room).rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            imported = {name.partition(".")[0] for name in names}
            if room == "records":  # the types of the one live record
                imported.discard("torch")
            assert not imported.intersection(HEAVY), file


def test_no_pickle_is_ever_read():
    for file in modules():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not {"pickle", "dill", "cloudpickle", "joblib"}.intersection(names), file
