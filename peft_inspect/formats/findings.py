"""Findings and outcomes as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from rich.text import Text

from peft_inspect.formats.names import fold, ranges, visible
from peft_inspect.formats.screen import Line
from peft_inspect.records import Diagnosis, Finding, Outcome, Severity, Structure

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
FEW = 8  # folded paths that a finding lists; the rest is counted


def finding_lines(finding: Finding, structure: Structure) -> Iterator[Line]:
    """What is wrong, where, the line of code, what to do, and whether that was tried."""
    yield Line(Text.assemble((finding.severity.value, STYLES[finding.severity]), " ", (finding.code, "bold"), " ", visible(finding.rule)))
    for paragraph in finding.message.split("\n"):
        yield Line(Text(visible(paragraph)), 2)
    yield from _modules(finding, structure)
    if finding.source is not None:
        yield Line(Text(visible(f"{finding.source} in {finding.source.function}"), style="cyan"), 2)
        yield Line(Text(visible(finding.source.code.strip().expandtabs(4))), 6)
    if finding.fix:
        first, *rest = finding.fix.split("\n")
        yield Line(Text.assemble(("fix: ", "bold"), visible(first)), 2)
        yield from (Line(Text(visible(line)), 6) for line in rest)
    if (tried := verdict(finding)) is not None:
        where = "" if finding.tried_in is None else f" in step {finding.tried_in}"
        yield Line(Text(f"verified{where}: {tried}", style="green" if finding.fix_verified else "yellow"), 2)


def headline(finding: Finding) -> Line:
    """What is wrong, in a line."""
    return Line(Text.assemble((f"{finding.severity.value} {finding.code}", STYLES[finding.severity]), f" {visible(finding.message)}"))


def verdict(finding: Finding) -> str | None:
    """What came of trying the fix, or why nothing did; None where there was nothing to try."""
    if finding.fix_verified is None:
        return visible(finding.verified) if finding.verified else None
    if finding.fix_verified:
        return visible(finding.verified or "yes, tried in memory and undone")
    return visible(f"no, trying it did not bring the gradients back{f' ({finding.verified})' if finding.verified else ''}")


def _modules(finding: Finding, structure: Structure) -> Iterator[Line]:
    if not finding.modules:
        return
    layers = {layer.path for layer in structure.adapter_layers}
    kind = "adapter layer" if layers.issuperset(finding.modules) else "module"
    folded = fold(finding.modules)
    count = len(finding.modules)
    yield Line(Text(f"{count} {kind}{'' if count == 1 else 's'}:", style="dim"), 2)
    for path in folded[:FEW]:
        yield Line(Text(visible(path) or "(root)"), 4)
    if len(folded) > FEW:
        yield Line(Text(f"… and {len(folded) - FEW} more groups (--format json lists every path)", style="dim"), 4)


def outcome_lines(report: Diagnosis, *, skipped: bool) -> Iterator[Line]:
    """How many rules ran: "no findings" never means "nothing ran". Which were ignored or crashed, and if asked, which were skipped."""
    severities = Counter(finding.severity for finding in report.findings)
    counted = ", ".join(
        f"{severities[severity]} {severity}{'' if severities[severity] == 1 else 's'}" for severity in Severity if severities[severity]
    )
    statuses = Counter(outcome.status for outcome in report.outcomes)
    rules = ", ".join(f"{statuses[status]} {status}" for status in ("clean", "found", "skipped", "ignored", "crashed") if statuses[status])
    style = "bold red" if severities[Severity.ERROR] else "yellow" if severities[Severity.WARNING] else "green"
    yield Line(Text.assemble((counted or "no findings", style), f"; {len(report.outcomes)} rules: {rules}"))
    for status in ("skipped", "ignored") if skipped else ("ignored",):
        for why, codes in _by_reason(report, status).items():
            yield Line(Text(visible(f"{status}: {code_ranges(codes)} ({why})"), style="dim"))
    for outcome in report.outcomes:
        if outcome.status == "crashed":
            yield Line(Text(visible(f"crashed: {outcome.code} {outcome.rule} ({outcome.why})"), style="bold red"))


def code_ranges(codes: Iterable[str]) -> str:
    """`PI310, PI312–PI315`: successive codes in one."""
    numbers = ranges(int(code.removeprefix("PI")) for code in codes).split(",")
    return ", ".join("–".join(f"PI{number:0>3}" for number in run.split("–")) for run in numbers)


def _by_reason(report: Diagnosis, status: str) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    chosen: list[Outcome] = [outcome for outcome in report.outcomes if outcome.status == status]
    for outcome in chosen:
        reasons.setdefault(outcome.why, []).append(outcome.code)
    return reasons
