"""Every rule is held to its word by its own two examples, and to the form that docs and `explain` are made from."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import peft_inspect
from peft_inspect.diagnose import named, precedence
from peft_inspect.inspection import inspect
from peft_inspect.records import Remedy, Request
from peft_inspect.rules import Example, Rule, all_rules, page
from peft_inspect.rules.rule import Symptom, Tier
from peft_inspect.rules.words import agreed, literal, nearest, settings
from peft_inspect.rules.written_out import program
from tests import versions

PLURAL_OF_ONE = re.compile(r"\b1 (adapter |base |active )*(layers|modules|tensors|weights|parameters|routers|towers)\b")
RULES = [pytest.param(rule, id=f"{rule.code} {rule.name}") for rule in all_rules()]

# The examples are user programs: what they make torch and PEFT warn about is part of them.
runs_examples = pytest.mark.filterwarnings("ignore")


@cache
def pasted(rule: Rule[Any]) -> dict[str, Any]:
    """What a file defines into which the program that `explain` prints was pasted."""
    file = Path(tempfile.mkdtemp(prefix="peft-inspect-pasted-")) / f"{rule.code.lower()}.py"
    file.write_text(program(rule))
    return runpy.run_path(str(file), run_name=rule.code)


def example_of(rule: Rule[Any], which: str) -> Example:
    """A program of a rule, as `explain` prints it; skipped where the installed libraries cannot run it."""
    if rule.code in versions.EXAMPLES:
        versions.require(*versions.EXAMPLES[rule.code])
    example: Example = pasted(rule)[which]()
    return example


def inspected(example: Example) -> peft_inspect.Report:
    """An example under all rules, its fixes tried; of one that trains, its step is watched, and merged files are compared."""
    arguments = vars(example).copy()
    step, merged = arguments.pop("step"), arguments.pop("merged")
    if step is not None:
        with peft_inspect.watch(fail_on="never") as watched:
            step()
        assert watched.report is not None
        return watched.report
    if merged is not None:
        return inspect(Request(model=merged[0], base=merged[1], adapter=example.adapter))
    return peft_inspect.check(**arguments)


def listed(report: peft_inspect.Report) -> list[str]:
    """The findings of a report, for the message of a failed assertion."""
    return [f"{found.code} {found.message}" for found in report.findings]


@runs_examples
@pytest.mark.parametrize("rule", RULES)
def test_the_broken_example_fires_its_rule_and_no_other(rule: Rule[Any]) -> None:
    report = inspected(example_of(rule, "broken"))
    assert [found.code for found in report.findings] == [rule.code], listed(report)
    found = report.findings[0]
    assert found.rule == rule.name
    assert not PLURAL_OF_ONE.search(f"{found.message}\n{found.fix}"), found.message
    assert found.message
    assert found.fix
    assert found.fix_verified is (None if found.remedy is None else True), found.verified


@runs_examples
@pytest.mark.parametrize("rule", RULES)
def test_the_fixed_example_is_clean_under_all_rules(rule: Rule[Any]) -> None:
    report = inspected(example_of(rule, "fixed"))
    assert report.findings == (), listed(report)
    assert not [f"{outcome.code}: {outcome.why}" for outcome in report.outcomes if outcome.status == "crashed"]


@runs_examples
@pytest.mark.parametrize("code", ["PI303", "PI401", "PI408", "PI501", "PI001"])
def test_a_pasted_program_prints_both_reports(code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of each kind: a batch, an adapter file, merged folders, a step, pins."""
    (tmp_path / "pasted.py").write_text(program(named((code,))[0]))
    runpy.run_path(str(tmp_path / "pasted.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.count(code) == 1
    assert "no findings" in printed.partition(code)[2]


@pytest.mark.parametrize("rule", RULES)
def test_the_page_has_a_title_a_reason_and_a_remedy(rule: Rule[Any]) -> None:
    title, blank, *text = page(rule).splitlines()
    assert title.endswith(".")
    assert len(title) <= 120
    assert not blank
    assert "\n".join(text).count("\n\n") >= 1, "the page wants at least two paragraphs: why it matters, and what to do"


@pytest.mark.parametrize("rule", RULES)
def test_the_file_is_called_like_the_rule(rule: Rule[Any]) -> None:
    module = rule.check.__module__.rpartition(".")[2]
    assert module == f"{rule.code.lower()}_{rule.name.replace('-', '_')}"


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_gives_way_only_to_rules_that_exist_and_says_why(rule: Rule[Any]) -> None:
    codes = {other.code for other in all_rules()} - {rule.code}
    assert codes.issuperset(rule.gives_way_to)
    assert bool(rule.because) == bool(rule.gives_way_to)
    assert not rule.because or rule.because.endswith(".")


def test_what_says_more_comes_first() -> None:
    """The order from the layer to the loss, for each symptom; an exception names what no tier says already."""
    tiers: dict[tuple[Symptom, Tier], list[str]] = {}
    for rule in all_rules():
        if rule.tier is not None:
            tiers.setdefault((rule.symptom, rule.tier), []).append(rule.code)
    none, zero = Symptom.NO_GRADIENT, Symptom.ZERO_GRADIENT
    assert tiers == {
        (none, Tier.CAUSE): ["PI201", "PI202", "PI203", "PI205", "PI206"],
        (none, Tier.MODE): ["PI303", "PI304"],
        (none, Tier.LOSS): ["PI307"],
        (none, Tier.CUT): ["PI305", "PI306"],
        (none, Tier.UNUSED): ["PI308"],
        (none, Tier.SYMPTOM): ["PI204", "PI208", "PI309"],
        (zero, Tier.CAUSE): ["PI311", "PI312", "PI313", "PI315"],
        (zero, Tier.CUT): ["PI314", "PI318"],
        (zero, Tier.SYMPTOM): ["PI310"],
    }
    order = list(precedence(all_rules()).items())
    for place, (rule, before) in enumerate(order):
        assert {earlier.code for earlier, _ in order[:place]}.issuperset(before)
        by_tier = {other.code for other in all_rules() if replace(rule, gives_way_to=()).after(other)}
        assert by_tier.isdisjoint(rule.gives_way_to)


@pytest.mark.parametrize("rule", RULES)
def test_the_check_and_both_examples_say_what_they_are(rule: Rule[Any]) -> None:
    for function in (rule.check, rule.broken, rule.fixed):
        assert (function.__doc__ or "").strip().endswith("."), function.__name__


def test_codes_and_names_are_unique() -> None:
    for values in ([rule.code for rule in all_rules()], [rule.name for rule in all_rules()]):
        assert len(values) == len(set(values))


def test_the_catalogue_loads_without_torch() -> None:
    """`explain` prints any page at once because of it."""
    code = (
        "import sys; from peft_inspect.rules import all_rules, page; [page(rule) for rule in all_rules()]; "
        "sys.exit(', '.join({'torch', 'transformers', 'peft'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_rule_module_is_in_the_registry() -> None:
    for rule in all_rules():
        assert importlib.import_module(rule.check.__module__).RULE is rule


def test_a_word_agrees_with_its_number() -> None:
    assert [agreed(number, "is", "are") for number in (0, 1, 2)] == ["are", "is", "are"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (r".*\.q_proj", r"r'.*\.q_proj'"),
        ([r"a\d+", "b"], r"[r'a\d+', 'b']"),
        ({r"layers\.0": 4}, r"{r'layers\.0': 4}"),
        ("q_proj", "'q_proj'"),
        (None, "None"),
        ("it's \\d", repr("it's \\d")),
        ("ends in \\", repr("ends in \\")),
        ("\x1b\\d", repr("\x1b\\d")),
    ],
)
def test_a_value_is_written_as_python_reads_it(value: Any, said: str) -> None:
    """Regular expressions as raw strings: without their quotes a shell takes them too."""
    assert literal(value) == said
    assert ast.literal_eval(said) == value
    assert settings({"target_modules": value}) == f"target_modules={said}"


def test_near_names_are_told_as_one_or_as_several() -> None:
    assert nearest(()) == ""
    assert nearest(["q_proj"]) == "; the nearest is 'q_proj'"
    assert nearest(["q_proj", "k_proj"]) == "; the nearest are 'q_proj', 'k_proj'"


def test_every_remedy_can_be_done() -> None:
    from peft_inspect.fixes.fixes import fix_for

    assert all(callable(fix_for(remedy)) for remedy in Remedy)
