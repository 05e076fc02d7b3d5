"""What the tool uses behind the backs of torch, transformers and PEFT: where it is, and what happens when it goes."""

import ast
import importlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import torch
from packaging.version import Version

import peft_inspect
from peft_inspect.internals import INTERNALS, REGISTRIES, MissingInternalError, find, require

PACKAGE = Path(peft_inspect.__file__).parent
LIBRARIES = ("torch", "transformers", "peft", "huggingface_hub", "diffusers", "timm", "accelerate", "safetensors")
OPERATIONS = tuple(name for name in INTERNALS if INTERNALS[name].path.startswith("torch.ops.aten._"))
SEVERAL = {"all operations": OPERATIONS, **{name: (name,) for name in INTERNALS if name not in OPERATIONS}}

WITHOUT = """
import json, os, sys, warnings
import peft, torch, transformers
from dataclasses import replace
from peft import LoraConfig, get_peft_model
from peft_inspect import internals

warnings.simplefilter("ignore")

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(4, 8), torch.nn.Linear(8, 4)

    def forward(self, x):
        return self.down(self.up(x))

    @torch.no_grad()
    def features(self, x):
        return self(x)

class Whole(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.base, self.head = get_peft_model(Model(), LoraConfig(r=2, target_modules=["up"])), torch.nn.Linear(4, 1)

    def forward(self, x):
        return {"loss": self.head(self.base.features(x)).square().mean()}

def outcome(names):
    for name in names:
        internals.INTERNALS[name] = replace(internals.INTERNALS[name], path="torch.no_longer_here")
    import peft_inspect
    from peft_inspect.records import Request

    small = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    request = Request(model="arch:llama", lora_fields={"target_modules": ["q_proj"]}, config_fields=small)
    reports = [peft_inspect.check(Whole(), batch={"x": torch.rand(2, 4)}), peft_inspect.inspect(request, "check")]
    return [
        {
            "found": sorted({finding.code for finding in report.findings}),
            "crashed": [row.code for row in report.outcomes if row.status == "crashed"],
            "why": sorted({row.why for row in report.outcomes if row.status == "skipped" and row.code == "PI303"}),
        }
        for report in reports
    ]

for label, names in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        try:
            result = outcome(names)
        except BaseException as error:
            result = f"{type(error).__name__}: {error}"
        print(json.dumps([label, result]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize("name", INTERNALS)
def test_each_is_where_it_is_expected(name):
    internal = INTERNALS[name]
    installed = version(internal.library)
    if internal.since and Version(installed) < Version(internal.since):
        pytest.skip(f"{internal.library} {installed} is older than {internal.since}, which brought {internal.path}")
    assert find(name) is not None, f"{internal.library} {installed} has no {internal.path}; without it, {internal.without}"


def test_modules_and_tensors_have_their_registries():
    assert set(REGISTRIES) <= vars(torch.nn.Module()).keys()
    assert hasattr(torch.Tensor, "_backward_hooks")


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(INTERNALS, "gone", INTERNALS["storage_id"].__class__("torch._C._no_such_thing", "nothing works"))
    with pytest.raises(MissingInternalError, match=r"torch [\d.]+\S* has no torch\._C\._no_such_thing .*nothing works"):
        require("gone")


GONE = "has no torch.no_longer_here"


def test_check_gives_a_report_without_each_of_them():
    """`check` of a broken live model, and of a sound one without weights, in one process that takes one away at a time."""
    if sys.platform == "win32":
        pytest.skip("needs fork")
    labels = json.dumps({"nothing": (), **SEVERAL})
    done = subprocess.run([sys.executable, "-c", WITHOUT, labels], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    results = dict(map(json.loads, done.stdout.splitlines()))
    assert list(results) == ["nothing", *SEVERAL]
    assert {label: result for label, result in results.items() if not _are_reports(result)} == {}
    assert [report["why"] for report in results["nothing"]] == [[], []]


def _are_reports(result):
    """Whether both reports say what is found, or that the rule is skipped for want of the name; and no rule crashed."""
    if isinstance(result, str):
        return False
    live, weightless = result
    judged = live["found"] == ["PI303"] or (not live["found"] and GONE in live["why"][0])
    return (
        judged and not weightless["found"] and all(GONE in why for why in weightless["why"]) and not live["crashed"] + weightless["crashed"]
    )


def _own_names(trees):
    """Private names that the package gives itself."""
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                yield node.name
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                yield node.attr
            elif isinstance(node, (ast.AnnAssign, ast.Assign)):
                yield from (name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store))


def _private(name):
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


PROMISED = {"torch.jit.is_tracing", "torch.overrides.TorchFunctionMode", "huggingface_hub.utils.logging"}  # documented, and in no `__all__`


def _unlisted(module, name):
    """Whether a module that lists what it promises leaves this name out."""
    if _private(f"{module}.{name}"):
        return True
    try:
        found = importlib.import_module(module)
    except ImportError:  # a library that is not installed here, or a part that this release has not
        return False
    listed = name in getattr(found, "__all__", (name,)) or isinstance(getattr(found, name, None), ModuleType)
    return not listed and f"{module}.{name}" not in PROMISED and not name.startswith("__")


def test_no_other_file_uses_a_private_name_of_a_library():
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "internals.py" and not path.name.startswith("pi")]
    trees = {path.relative_to(PACKAGE): ast.parse(path.read_text(encoding="utf-8")) for path in files}
    known = {*_own_names(trees.values()), *REGISTRIES}
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
                found += [f"{path}: {node.module}.{alias.name}" for alias in node.names if _unlisted(node.module, alias.name)]
            if isinstance(node, ast.Attribute) and _private(node.attr) and node.attr not in known:
                owner = ast.unparse(node.value)
                own = owner in ("self", "cls") or owner.split(".")[0] in sys.stdlib_module_names
                found += [] if own else [f"{path}: {owner}.{node.attr}"]
    assert found == []
