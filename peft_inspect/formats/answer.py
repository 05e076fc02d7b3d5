"""The answer in one plain sentence: what every screen ends with, and a long one begins with."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from rich.text import Text

from peft_inspect.formats.names import visible
from peft_inspect.formats.totals import GradientTotals, gradient_totals, idle_parameters
from peft_inspect.records import Diagnosis, Finding, Severity, Trace

LONG = 110  # characters of a cause that is told in full


def answer(report: Diagnosis) -> Text:
    """Whether the adapters train, and if not, what keeps them from it and where."""
    errors = report.at_or_above(Severity.ERROR)
    warnings = [finding for finding in report.findings if finding.severity is Severity.WARNING]
    said = _of_structure(report, errors) if report.trace is None else _of_step(report, report.trace, errors)
    if warnings and not errors:
        said += f"; {_counted(len(warnings), 'warning')} above"
    if report.accepted:
        said += f"; {_counted(len(report.accepted), 'finding')} accepted"
    return Text(visible(said), style="bold red" if errors else "yellow" if warnings else "green")


def answer_of_several(what: str, reports: Mapping[str, Diagnosis], failed: Collection[str], red: Collection[str]) -> Text:
    """How many failed and which, for the end of a report on several.

    Args:
        what: they are, "targets".
        reports: by name.
        failed: those that could not be inspected.
        red: those with a finding at or above what they fail on.
    """
    count = len(reports) + len(failed)
    said = [f"{len(red)} of {count} {what} failed: {', '.join(red)}"] if red else []
    if failed:
        said.append(f"{len(failed)} of {count} could not be inspected: {', '.join(failed)}")
    return Text(visible("; ".join(said) or f"none of {count} {what} failed"), style="bold red" if said else "green")


def _of_structure(report: Diagnosis, errors: tuple[Finding, ...]) -> str:
    merged = next((file.merged for file in report.adapter_files if file.merged is not None), None)
    if merged is not None:
        judged = sum(tensor.verdict == "merged" for tensor in merged.tensors)
        return _cause(errors) if errors else f"the merged weights contain the adapter: {judged:,} of {len(merged.tensors):,} tensors"
    unchecked = "gradients were not checked (peft-inspect gradcheck does)"
    if errors:
        return f"{_cause(errors)}; {unchecked}"
    return f"structure only: {unchecked}" if report.structure.adapter_layers else f"no adapter here; {unchecked}"


def _of_step(report: Diagnosis, trace: Trace, errors: tuple[Finding, ...]) -> str:
    totals = gradient_totals(trace)
    if not totals.total:
        return f"nothing of an adapter to train: {_cause(errors)}" if errors else "no adapter parameters here, and nothing wrong"
    if errors:
        missing = _not_training(totals)
        return f"{missing}: {_cause(errors)}" if missing else f"{_cause(errors)}; {_all(totals.total)} {_arrives(report)} all the same"
    said = _training(report, trace, totals)
    judged = any(outcome.code.startswith("PI1") and outcome.code != "PI112" for outcome in report.outcomes)
    return said if judged else f"{said}; what the config reaches was not judged (peft-inspect check does)"


def _not_training(totals: GradientTotals) -> str:
    """How much does not train; nothing where every adapter parameter gets a gradient."""
    if totals.with_grad == 0:
        return "nothing trains" if totals.other_with_grad == 0 else "no adapter parameter trains"
    if totals.without_grad:
        return f"{totals.without_grad:,} of {totals.total:,} adapter parameters do not train"
    return ""


def _all(total: int) -> str:
    return "the one adapter parameter" if total == 1 else f"all {total:,} adapter parameters"


def _training(report: Diagnosis, trace: Trace, totals: GradientTotals) -> str:
    """What trains, for a report without errors; why the rest does not, where that is known."""
    some = _all(totals.total) if not totals.without_grad else f"{totals.with_grad:,} of {totals.total:,} adapter parameters"
    said = f"{some} {_does(report, one=totals.total == 1)}"
    if idle := idle_parameters(trace):
        said += f"; {idle:,} are in layers that did not run"
    if totals.frozen:
        said += f"; {totals.frozen:,} are frozen"
    return f"{said}. No loss was given: this proves the wiring and nothing more" if _without_loss(report) else said


def _arrives(report: Diagnosis) -> str:
    return "get a gradient" if report.structure.weights != "none" and not _without_loss(report) else _does(report, one=False)


def _does(report: Diagnosis, *, one: bool) -> str:
    """What parameters do to which a gradient arrives: without weights it has no size, and without a loss no meaning."""
    if _without_loss(report):
        return f"{'is' if one else 'are'} connected to the outputs"
    return f"{'is' if one else 'are'} connected to the loss" if report.structure.weights == "none" else "trains" if one else "train"


def _without_loss(report: Diagnosis) -> bool:
    return any(finding.rule == "no-loss" for finding in report.findings)


def _cause(errors: tuple[Finding, ...]) -> str:
    """The first error in its own words, with its line; how many more there are."""
    first = next((finding for finding in errors if finding.source is not None), errors[0])
    said = first.message.partition("\n")[0]
    if len(said) > LONG:  # the finding above says the rest
        said = re.split(r"[:;] ", said, maxsplit=1)[0]
    if first.source is not None:
        said += f", {first.source}"
    return said if len(errors) == 1 else f"{said}; and {_counted(len(errors) - 1, 'more error')}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
