"""Every program of files/, broken and fixed: what is wrong with an adapter on disk is named once; the repaired one is silent.

A case saves and loads an adapter with PEFT, as a user would, and returns the model and the folder that is checked against it
(None: the loaded adapter alone). It is judged without running the model. `MAPPING` is the renaming that the finding must suggest.
A last test compares with what PEFT really loads.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import torch
from packaging.version import Version
from peft import PeftModel
from safetensors.torch import load_file

import peft_inspect
from peft_inspect.diagnose import Evidence, diagnose, named
from peft_inspect.load.adapter.adapters import read_adapter_files
from peft_inspect.records import Diagnosis, Subject
from peft_inspect.structure import adapter_evidence, read_structure
from tests.versions import require_for_case

# The programs are the users' own, with whatever they make torch, transformers and PEFT warn about.
pytestmark = pytest.mark.filterwarnings("ignore")

FOLDER = Path(__file__).parent / "files"
CASES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "tiny")


@pytest.fixture(autouse=True)
def _beside_their_helper(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The programs import `tiny` from their own folder."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    sys.modules.pop("tiny", None)


def program(name: str) -> ModuleType:
    require_for_case(f"files/{name}")
    return load_program(name)


def load_program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"file_case_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judged(model: torch.nn.Module, folder: str | None) -> Diagnosis:
    """The PI4xx rules over a model and a folder, without running the model."""
    files = read_adapter_files(folder) if folder else ()
    subject = Subject(model, "case", adapter_files=files)
    structure = read_structure(subject)
    return diagnose("case", Evidence(structure, None, adapter_evidence(subject, structure)), named(["PI4"]))


def listed(diagnosis: Diagnosis) -> str:
    return "\n".join(f"{found.code} {found.modules[:3]} {found.message}" for found in diagnosis.findings)


@pytest.mark.parametrize("name", CASES)
def test_the_fault_is_named_once_with_its_modules(name: str, tmp_path: Path) -> None:
    case = program(name)
    diagnosis = judged(*case.broken(str(tmp_path)))
    assert [(found.code, found.rule) for found in diagnosis.findings] == [(case.RULE, case.NAME)], listed(diagnosis)
    (found,) = diagnosis.findings
    assert found.severity.value == vars(case).get("SEVERITY", "error")
    if case.LAYERS is None:
        assert found.modules == ()
    else:
        paths = {module.path for module in diagnosis.structure.modules}
        assert set(found.modules) == {path for path in paths if re.fullmatch(case.LAYERS, path)}
    assert vars(case).get("FIX", "") in found.fix
    assert found.facts.get("mapping") == vars(case).get("MAPPING")


@pytest.mark.parametrize("name", CASES)
def test_the_fixed_program_is_silent(name: str, tmp_path: Path) -> None:
    diagnosis = judged(*program(name).fixed(str(tmp_path)))
    assert diagnosis.findings == (), listed(diagnosis)
    assert "crashed" not in {outcome.status for outcome in diagnosis.outcomes}


def test_a_peft_that_would_put_the_name_in_twice_leaves_such_keys_out(tmp_path: Path) -> None:
    if Version(version("peft")) >= Version("0.21"):
        pytest.skip(f"peft {version('peft')} takes keys with the adapter's own name in them")
    case = load_program("adapter_name_inside_keys")
    (found,) = judged(*case.fixed(str(tmp_path))).findings
    assert (found.code, found.facts["mapping"]) == (case.RULE, {"default.": ""})


def test_an_untrained_adapter_that_was_loaded_for_use_is_one_finding(tmp_path: Path) -> None:
    """It is frozen because it was loaded for use; where it is trained further, that it came frozen is the fault."""
    model, _ = program("saved_before_the_first_step").broken(str(tmp_path))
    batch = {"input_ids": torch.tensor([[1, 2, 3]]), "labels": torch.tensor([[1, 2, 3]])}
    for training, code in (([], "PI407"), ([model], "PI301"), ([model.base_model.model.lm_head], "PI301")):
        model.eval()
        for module in training:
            module.train()
        report = peft_inspect.check(model, batch)
        assert [found.code for found in report.findings] == [code], listed(report)


def test_the_file_of_an_untrained_adapter_hides_no_adapter_that_came_frozen(tmp_path: Path) -> None:
    model, _ = program("saved_before_the_first_step").broken(str(tmp_path))
    batch = {"input_ids": torch.tensor([[1, 2, 3]]), "labels": torch.tensor([[1, 2, 3]])}
    report = peft_inspect.check(model.train(), batch, adapter=str(tmp_path))
    assert [found.code for found in report.findings] == ["PI301", "PI407"], listed(report)


@pytest.mark.parametrize("name", [name for name in CASES if "MAPPING" in (FOLDER / f"{name}.py").read_text()])
def test_the_suggested_renaming_makes_peft_load_every_tensor(name: str, tmp_path: Path) -> None:
    """The suggestion is applied to the file as written, and the values arrive in the model."""
    from peft import set_peft_model_state_dict

    model, folder = program(name).broken(str(tmp_path))
    (found,) = judged(model, folder).findings
    tensors = load_file(Path(folder, "adapter_model.safetensors"))
    renamed = {}
    for key, value in tensors.items():
        for old, new in found.facts["mapping"].items():
            key = key.replace(old, new, 1) if old in key else key  # noqa: PLW2901  # several rewrites of one key
        renamed[key] = value
    result = set_peft_model_state_dict(model, renamed)
    assert not result.unexpected_keys
    live = [parameter for path, parameter in model.named_parameters() if path.count("lora_") == 1 or ".modules_to_save." in path]
    assert all(any(value.shape == own.shape and torch.equal(value, own) for own in live) for value in renamed.values())


SAVED = (
    "adalora_first_step",
    "dora",
    "experts_without_tokens",
    "frozen_reference_adapter",
    "fused_experts_target_parameters",
    "lora_on_embeddings",
    "multihead_attention_as_module",
    "peft_model_deep_inside",
    "seq_cls_head_in_modules_to_save",
    "tied_embeddings_saved_together",
    "transformers_add_adapter",
)


@pytest.mark.parametrize("name", SAVED)
def test_what_peft_saves_of_a_healthy_model_fits_it(name: str, tmp_path: Path) -> None:
    """Whatever the tuner and wherever the PeftModel sits. Fresh adapters are untrained, and nothing else is said of them."""
    spec = importlib.util.spec_from_file_location(f"healthy_{name}", FOLDER.parent / "healthy" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.healthy().model
    owner = next((inner for inner in model.modules() if isinstance(inner, PeftModel)), model)
    owner.save_pretrained(str(tmp_path))
    diagnosis = judged(model, str(tmp_path))
    assert {found.code for found in diagnosis.findings} <= {"PI407"}, listed(diagnosis)
    assert {outcome.code for outcome in diagnosis.outcomes if outcome.status in {"clean", "found"}} >= {"PI401", "PI402", "PI403", "PI406"}
