"""The fault zoo: every bypass and gradient fault in two models is flagged, named, at its line, with its fix proved."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from peft_inspect.rules import all_rules

SCRIPT = Path(__file__).parent.parent / "docs" / "fault_zoo.py"

# The faults are programs of users, with whatever they make torch, transformers and PEFT warn about.
pytestmark = pytest.mark.filterwarnings("ignore")


def _loaded() -> Any:
    spec = importlib.util.spec_from_file_location("fault_zoo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # its dataclasses look it up there
    spec.loader.exec_module(module)
    return module


zoo = _loaded()
verdict = cache(zoo.verdict)
HOSTS = [pytest.param(host, id=host.name) for host in zoo.HOSTS]
FAULTS = [pytest.param(fault, id=fault.code) for fault in zoo.FAULTS]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named_at_its_line_with_its_fix_proved(fault: Any, host: Any) -> None:
    said = verdict(fault, host)
    assert said.findings == (fault.code,)
    assert said.named, "the finding is not about exactly the layers that got the fault"
    assert said.line in (None, True), "the line of code is missing or another one"
    assert said.verified in (None, True), "the fix could not be proved"


@pytest.mark.parametrize("host", HOSTS)
def test_the_healthy_model_is_met_with_silence(host: Any) -> None:
    assert zoo.inspect(zoo.program(host)).findings == ()


def test_the_zoo_holds_every_bypass_and_gradient_rule() -> None:
    assert {fault.code for fault in zoo.FAULTS} == {rule.code for rule in all_rules() if rule.code.startswith(("PI2", "PI3"))}


def test_a_fault_with_a_line_has_one_marked() -> None:
    assert all(zoo.marked_lines(fault.code) for fault in zoo.FAULTS if fault.line)


def test_the_page_in_docs_has_not_drifted() -> None:
    assert zoo.PAGE.read_text(encoding="utf-8") == zoo.page(verdict)
