"""Accepted findings: what is known fails nothing, what is new does."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from peft_inspect.project.baseline import Baseline
from peft_inspect.records import Diagnosis, Finding, InspectionError, Outcome, Severity, Source

LINE = Source("src/train.py", 22, "forward", "  hidden = hidden.detach()")
CUT = Finding("PI305", "detached-activation", Severity.ERROR, "the output is cut off by detach", ("layers.0.q_proj",), LINE)
IDLE = Finding("PI104", "uncovered-block-type", Severity.WARNING, "2 of 4 block types carry no adapter")


def diagnosis(*findings: Finding) -> Diagnosis:
    outcomes = tuple(Outcome(finding.code, finding.rule, "found") for finding in findings)
    return Diagnosis("train.py:build", None, None, findings, outcomes)  # type: ignore[arg-type]


def reread(baseline: Baseline, folder: Path) -> Baseline:
    out = StringIO()
    baseline.write(out)
    (folder / "known.json").write_text(out.getvalue())
    return Baseline.read(str(folder / "known.json"))


@pytest.fixture
def known(tmp_path: Path) -> Baseline:
    return reread(Baseline("known.json").with_all_of({"chat": diagnosis(CUT, IDLE)}), tmp_path)


def test_what_is_accepted_is_no_finding_and_its_rule_says_where_it_was_accepted(known: Baseline) -> None:
    report = known.applied("chat", diagnosis(CUT, IDLE))
    assert (report.findings, report.accepted) == ((), (CUT, IDLE))
    assert {outcome.status for outcome in report.outcomes} == {"ignored"}
    assert all("accepted in" in outcome.why for outcome in report.outcomes)


@pytest.mark.parametrize(
    ("found", "accepted"),
    [
        (replace(CUT, source=replace(LINE, line=90, file="/elsewhere/train.py")), True),  # code above it moved
        (replace(CUT, message="said in other words"), True),
        (replace(CUT, modules=("layers.0.q_proj", "layers.1.q_proj")), False),  # one more layer
        (replace(CUT, source=replace(LINE, code="x = hidden.detach()")), False),  # another line
        (replace(IDLE, message="3 of 4 block types carry no adapter"), False),  # known by nothing else
    ],
)
def test_a_finding_is_known_by_its_modules_and_the_text_of_its_line(known: Baseline, found: Finding, accepted: bool) -> None:
    assert bool(known.applied("chat", diagnosis(found)).accepted) is accepted


def test_a_rule_that_found_something_new_as_well_stays_found(known: Baseline) -> None:
    new = replace(CUT, modules=("layers.7.q_proj",))
    report = known.applied("chat", diagnosis(CUT, new))
    assert (report.findings, [outcome.status for outcome in report.outcomes]) == ((new,), ["found", "found"])


def test_every_target_has_its_own_and_the_others_stay_when_one_is_written_anew(known: Baseline, tmp_path: Path) -> None:
    assert known.applied("speech", diagnosis(CUT)).accepted == ()
    both = reread(known.with_all_of({"speech": diagnosis(CUT)}), tmp_path)
    assert (both.applied("chat", diagnosis(CUT)).accepted, both.applied("speech", diagnosis(CUT)).accepted) == ((CUT,), (CUT,))
    assert len(both.with_all_of({"chat": diagnosis()}).entries) == 1


def test_what_is_found_no_more_is_counted(known: Baseline) -> None:
    assert known.gone({"chat": diagnosis(CUT)}) == 1
    assert known.gone({"speech": diagnosis()}) == 0


@pytest.mark.parametrize("text", ["[1]", "{", '{"schema": 2, "accepted": []}', '{"schema": 1, "accepted": [{}]}', '{"accepted": 3}'])
def test_a_file_that_is_no_baseline_is_refused_with_what_writes_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "known.json").write_text(text)
    with pytest.raises(InspectionError, match="--write-baseline"):
        Baseline.read(str(tmp_path / "known.json"))
    with pytest.raises(InspectionError, match="there is no baseline"):
        Baseline.read(str(tmp_path / "none.json"))
