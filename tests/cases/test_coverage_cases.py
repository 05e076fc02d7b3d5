"""Every program of `coverage/`: its config reached too little, too much, or the wrong thing, and the structure alone shows it.

RULE is the one that fires, once; ALSO are rules that the same config deserves besides. MODULES is a pattern for exactly the
module paths that the finding lists, ENTRIES are the entries of the config that it names.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from peft import PeftConfig, PeftModel, get_peft_model

from peft_inspect.diagnose import Evidence, diagnose, named
from peft_inspect.records import Diagnosis, Severity, Subject
from peft_inspect.structure import read_structure
from peft_inspect.suggest import corrected
from tests.versions import require_for_case

if TYPE_CHECKING:
    from peft_inspect.rules import Example

# The programs are the users' own, with whatever they make torch, transformers and PEFT warn about.
pytestmark = pytest.mark.filterwarnings("ignore")

FOLDER = Path(__file__).parent
CASES = sorted(path.stem for path in (FOLDER / "coverage").glob("*.py"))
HEALTHY = sorted(path.stem for path in (FOLDER / "healthy").glob("*.py"))
RULES = named(("PI1", "PI316"))


@cache
def program(folder: str, name: str) -> ModuleType:
    """The module of a case."""
    require_for_case(f"{folder}/{name}")
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", FOLDER / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inspected(example: Example) -> Diagnosis:
    """The rules on structure over one example, without running it."""
    structure = read_structure(Subject(example.model, "a case", optimizer=example.optimizer))
    diagnosis = diagnose("a case", Evidence(structure), RULES)
    assert not [outcome for outcome in diagnosis.outcomes if outcome.status == "crashed"]
    return diagnosis


def listed(diagnosis: Diagnosis) -> str:
    """The findings, for the message of a failed assertion."""
    return "\n".join(f"{found.code} {found.message} {found.modules[:3]}" for found in diagnosis.findings)


@pytest.mark.parametrize("name", CASES)
def test_the_fault_is_named_once_with_what_it_concerns(name: str) -> None:
    case = program("coverage", name)
    diagnosis = inspected(case.broken())
    assert sorted(found.code for found in diagnosis.findings) == sorted([case.RULE, *vars(case).get("ALSO", ())]), listed(diagnosis)
    found = next(found for found in diagnosis.findings if found.code == case.RULE)
    assert found.message
    assert found.fix
    if "MODULES" in vars(case):
        paths = {module.path for module in diagnosis.structure.modules if re.fullmatch(case.MODULES, module.path)}
        assert set(found.modules) == paths
    if "ENTRIES" in vars(case):
        assert set(found.facts["unmatched"]) == case.ENTRIES


@pytest.mark.parametrize("name", CASES)
def test_the_mended_program_is_met_with_silence(name: str) -> None:
    diagnosis = inspected(program("coverage", name).fixed())
    assert diagnosis.findings == (), listed(diagnosis)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_sound_program_is_met_with_no_more_than_notes(name: str) -> None:
    diagnosis = inspected(program("healthy", name).healthy())
    assert not diagnosis.at_or_above(Severity.WARNING), listed(diagnosis)


def suggested(name: str) -> list[Any]:
    """The findings of a broken case that suggest a config."""
    found = inspected(program("coverage", name).broken()).at_or_above(Severity.WARNING)
    return [finding for finding in found if finding.suggestion]


@pytest.mark.parametrize("name", CASES)
def test_a_suggested_config_works_and_the_fault_is_gone(name: str) -> None:
    """Each suggestion alone removes its own finding; all together remove all of them."""
    findings = suggested(name)
    if not findings:
        assert program("coverage", name).RULE in {"PI111", "PI112", "PI114", "PI115", "PI116"}, "a config can fix this one"
        return
    for chosen in [[found] for found in findings] + [findings]:
        model = program("coverage", name).broken().model
        assert isinstance(model, PeftModel)
        config = model.peft_config["default"].to_dict()
        changed = PeftConfig.from_peft_type(**corrected(config, chosen))
        diagnosis = inspected(_Wrapped(get_peft_model(model.unload(), changed)))
        assert not {found.code for found in chosen} & {found.code for found in diagnosis.findings}, listed(diagnosis)


class _Wrapped:
    """An example of a model alone."""

    def __init__(self, model: PeftModel) -> None:
        self.model, self.optimizer = model, None
