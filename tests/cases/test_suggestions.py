"""What the findings of one report suggest agrees: all of it done at once leaves nothing that a part of it caused or hid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model

import peft_inspect
from peft_inspect.fixes.trials import _trial
from peft_inspect.records import Severity, Subject
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.suggest import corrected
from tests.cases.test_cases import FOLDER, program

if TYPE_CHECKING:
    from peft_inspect.rules import Example

# The programs are the users' own, with whatever they make torch, transformers and PEFT warn about.
pytestmark = pytest.mark.filterwarnings("ignore")

RUNS = sorted(
    (path.relative_to(FOLDER).with_suffix("").as_posix(), which)
    for path in FOLDER.glob("*/*.py")
    if path.parent.name != "files"
    for which in (("healthy",) if path.parent.name == "healthy" else ("broken", "fixed"))
)


def suggestions(report: peft_inspect.Report) -> list[peft_inspect.Finding]:
    """The findings that suggest another config."""
    return [found for found in report.at_or_above(Severity.WARNING) if found.suggestion]


def built(name: str, which: str) -> Example:
    """The program, always in the same way."""
    torch.manual_seed(0)
    example: Example = getattr(program(name), which)()
    return example


def check(example: Example) -> peft_inspect.Report:
    """Under all rules."""
    return peft_inspect.check(example.model, example.batch, loss=example.loss, optimizer=example.optimizer, verify=False)


def rewrapped(model: Any, findings: list[peft_inspect.Finding]) -> Any:
    """The model with its one PeftModel wrapped anew, as all the findings suggest."""
    path, wrapped = next((path, module) for path, module in model.named_modules() if isinstance(module, PeftModel))
    config = PeftConfig.from_peft_type(**corrected(wrapped.active_peft_config.to_dict(), findings))
    anew = get_peft_model(wrapped.unload(), config)
    if not path:
        return anew.train(model.training)
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, anew)
    return model


@pytest.mark.parametrize(("name", "which"), RUNS)
def test_all_suggestions_of_a_report_agree_and_leave_nothing_that_they_caused_or_hid(name: str, which: str) -> None:
    example = built(name, which)
    if not any(isinstance(module, PeftModel) for module in example.model.modules()) or name == "coverage/actor_and_critic_on_one_base":
        return  # nothing was wrapped that a config could wrap otherwise, or run
    before = check(example)
    chosen = suggestions(before)
    said: dict[str, Any] = {}
    for field, value in (item for found in chosen for item in found.suggestion.items()):
        assert said.setdefault(field, value) == value, field
    if chosen:
        again = built(name, which)
        after = peft_inspect.check(rewrapped(again.model, chosen), again.batch, loss=again.loss, verify=False)
        kept = {found.code for found in before.findings} - {found.code for found in chosen}
        assert not [f"{found.code} {found.message}" for found in after.at_or_above(Severity.WARNING) if found.code not in kept]


@pytest.mark.parametrize(("name", "which"), [run for run in RUNS if run[0].startswith(("bypass/", "gradient/")) and run[1] == "broken"])
def test_all_fixes_of_a_report_done_at_once_let_every_layer_train_that_it_names(name: str, which: str) -> None:
    example = built(name, which)
    report = check(example)
    remedied = [found for found in report.findings if found.remedy is not None]
    if len(remedied) > 1 and report.trace is not None:
        subject = Subject(example.model, "a case", "user", example.batch, example.loss, example.optimizer)
        for found in remedied:
            others = [other for other in remedied if other is not found]
            assert _trial(subject, report.trace, found, (found, *others))[0], found.code


def test_adapters_that_wait_for_each_other_are_one_finding() -> None:
    """What makes one active makes the other inactive."""
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]), adapter_name="first")
    for name in ("second", "third"):
        model.add_adapter(name, LoraConfig(target_modules=["q_proj"]))
    (found,) = peft_inspect.check(model, text_batch()).findings
    assert found.code == "PI207"
    assert "'second', 'third'" in found.message
    assert found.remedy is None
