"""The one sentence that every screen ends with, from hand-made records."""

from dataclasses import replace

import pytest

from peft_inspect.formats.answer import answer, answer_of_several
from peft_inspect.records import AdapterFile, Finding, GradientInfo, MergedTensor, MergedWeights, Outcome, Severity, Source


def said(report):
    return answer(report).plain


COVERAGE_JUDGED = (Outcome("PI101", "unmatched-target-module", "clean"),)
DETACHED = Finding(
    "PI305",
    "detached-activation",
    Severity.ERROR,
    "the output is cut off by detach\nand more",
    source=Source("train.py", 98, "forward", "x.detach()"),
)
FROZEN = Finding("PI302", "frozen-after-wrapping", Severity.ERROR, "3 layers are frozen")
IDLE = Finding("PI208", "branch-not-executed", Severity.WARNING, "the vision tower did not run")
NO_LOSS = Finding("PI320", "no-loss", Severity.WARNING, "the sum of the outputs was used")


def test_a_healthy_model_trains(make_llama, make_trace, make_report):
    structure = make_llama()
    assert said(make_report(structure, make_trace(structure), outcomes=COVERAGE_JUDGED)) == "all 16 adapter parameters train"


def test_gradcheck_says_that_it_did_not_judge_coverage(make_llama, make_trace, make_report):
    structure = make_llama()
    assert said(make_report(structure, make_trace(structure))).endswith("what the config reaches was not judged (peft-inspect check does)")


def test_without_weights_connection_is_what_is_known(make_llama, make_trace, make_report):
    structure = replace(make_llama(), weights="none")
    report = make_report(structure, make_trace(structure, loss=None, norm=None), outcomes=COVERAGE_JUDGED)
    assert said(report) == "all 16 adapter parameters are connected to the loss"


def test_without_weights_and_with_an_error_of_the_config_nothing_is_said_of_gradients(make_llama, make_trace, make_report):
    structure = replace(make_llama(), weights="none")
    unmatched = Finding("PI101", "unmatched-target-module", Severity.ERROR, "'key_proj' matched nothing")
    report = make_report(structure, make_trace(structure, loss=None, norm=None), (unmatched,), COVERAGE_JUDGED)
    assert said(report) == ("'key_proj' matched nothing; all 16 adapter parameters are connected to the loss all the same")


def test_a_long_cause_is_told_by_its_beginning_since_the_finding_above_says_the_rest(make_llama, make_trace, make_report):
    structure = make_llama()
    long = Finding("PI302", "frozen-after-wrapping", Severity.ERROR, f"something froze 8 layers: {'a long reason ' * 10}")
    assert said(make_report(structure, make_trace(structure, "frozen"), (long,))) == "nothing trains: something froze 8 layers"


def test_one_parameter_is_no_plural(make_llama, make_trace, make_report):
    structure = make_llama()
    trace = make_trace(structure)
    one = replace(trace, gradients=trace.gradients[:1])
    assert said(make_report(structure, one, outcomes=COVERAGE_JUDGED)) == "the one adapter parameter trains"


def test_several_targets_end_with_those_that_failed():
    assert answer_of_several("targets", {"a": None, "b": None}, (), ()).plain == "none of 2 targets failed"
    assert answer_of_several("targets", {"a": None, "b": None}, {"c": "…"}, ("b",)).plain == (
        "1 of 3 targets failed: b; 1 of 3 could not be inspected: c"
    )


def test_the_cause_has_its_line_and_one_with_a_line_comes_first(make_llama, make_trace, make_report):
    structure = make_llama()
    assert said(make_report(structure, make_trace(structure, "none"), (FROZEN, DETACHED))) == (
        "nothing trains: the output is cut off by detach, train.py:98; and 1 more error"
    )


def test_what_trains_beside_the_adapters_is_not_nothing(make_llama, make_trace, make_report):
    structure = make_llama()
    trace = make_trace(structure, "none")
    trace = replace(trace, gradients=(*trace.gradients, GradientInfo("head.weight", None, None, "ok", 1.0)))
    assert said(make_report(structure, trace, (DETACHED,))).startswith("no adapter parameter trains: ")


def test_layers_that_never_ran_are_told_from_those_without_a_gradient(make_llama, make_trace, make_report):
    structure = make_llama()
    trace = make_trace(structure)
    idle = structure.adapter_layers[0]
    gradients = tuple(replace(row, state="none", norm=None) if row.layer == idle.path else row for row in trace.gradients)
    trace = replace(trace, gradients=gradients, calls=tuple(call for call in trace.calls if call.path != idle.path))
    assert said(make_report(structure, trace, (IDLE,), COVERAGE_JUDGED)) == (
        "14 of 16 adapter parameters train; 2 are in layers that did not run; 1 warning above"
    )


def test_without_a_loss_only_the_wiring_is_proved(make_llama, make_trace, make_report):
    structure = make_llama()
    text = said(make_report(structure, make_trace(structure), (NO_LOSS,), COVERAGE_JUDGED))
    assert text.startswith("all 16 adapter parameters are connected to the outputs. No loss was given: this proves the wiring")


@pytest.mark.parametrize(("finding", "start"), [((), "structure only: "), ((FROZEN,), "3 layers are frozen; gradients were not checked")])
def test_a_structure_alone_claims_nothing_of_gradients(make_llama, make_report, finding, start):
    assert said(make_report(make_llama(), None, finding)).startswith(start)


def test_merged_weights_are_judged_by_what_they_contain(make_llama, make_report):
    file = AdapterFile("adapter", {}, (), merged=MergedWeights("merged", "base", (MergedTensor("a.weight", "a", "merged"),), exact=1))
    assert said(replace(make_report(make_llama()), adapter_files=(file,))) == "the merged weights contain the adapter: 1 of 1 tensors"
