"""What a project pins of a target, as findings of its own: they fail a check like any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from peft_inspect.config import Expectations
from peft_inspect.diagnose import OWN, names
from peft_inspect.records import Diagnosis, Finding, Outcome, Severity, Trace
from peft_inspect.records.diagnosis import Status

D = TypeVar("D", bound=Diagnosis)
CODE = "PI001"
HELP = """The target is not what the project's configuration expects of it.

`expect` in the configuration pins the number of adapter layers, the range of trainable parameters,
and that every adapter parameter gets a gradient. Find out what changed, or change the expectation."""


def with_expectations(report: D, expect: Expectations, ignore: Mapping[str, str]) -> D:
    """The report with one finding for each expectation that does not hold."""
    if expect == Expectations():
        return report
    unjudged = "gradients: no selected rule needed a batch" if expect.gradients and report.trace is None else ""
    return with_findings(report, CODE, HELP, tuple(_unmet(report, expect)), ignore, unjudged)


def with_findings(report: D, code: str, text: str, findings: tuple[Finding, ...], ignore: Mapping[str, str], unjudged: str = "") -> D:
    """The report with the findings of a judgement that is no rule of the catalogue, unless that is ignored.

    `unjudged` says what of it could not be judged.
    """
    status: Status = "found" if findings else "skipped" if unjudged else "clean"
    outcome = Outcome(code, OWN[code], status, unjudged, Severity.ERROR, text)
    reason = next((reason for pattern, reason in ignore.items() if names(pattern, code, OWN[code])), None)
    if reason is not None:
        outcome, findings = replace(outcome, status="ignored", why=reason), ()
    ordered = sorted((*report.findings, *findings), key=lambda finding: (finding.severity.rank, finding.code, finding.modules))
    return replace(report, findings=tuple(ordered), outcomes=(outcome, *report.outcomes))


def _unmet(report: Diagnosis, expect: Expectations) -> Iterator[Finding]:
    structure = report.structure
    layers = len(structure.adapter_layers)
    if expect.adapter_layers is not None and layers != expect.adapter_layers:
        yield _finding(
            f"{expect.adapter_layers} adapter layers are expected, and there are {layers}", expected=expect.adapter_layers, found=layers
        )
    trainable = sum(parameter.numel for parameter in structure.parameters if parameter.requires_grad)
    if expect.trainable_parameters is not None:
        least, most = expect.trainable_parameters
        if not least <= trainable <= most:
            wanted = f"{least:,}" if least == most else f"{least:,} to {most:,}"
            yield _finding(
                f"{wanted} trainable parameters are expected, and there are {trainable:,}", expected=[least, most], found=trainable
            )
    if expect.gradients == "all" and report.trace is not None:
        yield from _without_gradient(report, report.trace)


def _without_gradient(report: Diagnosis, trace: Trace) -> Iterator[Finding]:
    """Adapter parameters without a gradient."""
    adapter = [path for layer in report.structure.adapter_layers for path in layer.parameters]
    arrived = {gradient.path for gradient in trace.gradients if gradient.arrived}
    dead = [path for path in dict.fromkeys(adapter) if path not in arrived]
    if dead:
        owner = {path: layer.path for layer in report.structure.adapter_layers for path in layer.parameters}
        layers = tuple(dict.fromkeys(owner[path] for path in dead))
        yield replace(
            _finding(
                f"a gradient is expected for every adapter parameter, and {len(dead)} of {len(set(adapter))} get none", found=len(dead)
            ),
            modules=layers,
        )


def _finding(message: str, **facts: object) -> Finding:
    return Finding(
        CODE, OWN[CODE], Severity.ERROR, message, facts=facts, fix="find out what changed, or change `expect` in the configuration"
    )
