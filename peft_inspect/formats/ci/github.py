"""Workflow commands of GitHub Actions: every finding as an annotation on the user's own line, and a summary line for the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

from peft_inspect.formats.ci.places import place_of
from peft_inspect.formats.names import fold, visible
from peft_inspect.records import Diagnosis, Finding, Severity

_COMMAND: Mapping[Severity, str] = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def write(report: Diagnosis, out: TextIO) -> None:
    """One command per finding, most severe first, then one plain line."""
    for finding in report.findings:
        place = place_of(finding, report)
        properties = {"file": place.file, "line": str(place.line or 1), "title": f"{finding.code} {finding.rule}"}
        listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        out.write(f"::{_COMMAND[finding.severity]} {listed}::{_data(_text(finding))}\n")
    count = len(report.findings)
    crashed = sum(outcome.status == "crashed" for outcome in report.outcomes)
    out.write(
        f"peft-inspect: {count or 'no'} finding{'' if count == 1 else 's'} in {visible(report.source)}, {len(report.outcomes)} rules judged"
        + (f", {crashed} crashed" if crashed else "")
        + "\n"
    )


def write_failure(target: str, why: str, out: TextIO) -> None:
    """One command for a target that could not be inspected."""
    out.write(f"::error title={_property(f'{target} could not be inspected')}::{_data(visible(why, keep=chr(10)))}\n")


def _text(finding: Finding) -> str:
    lines = [finding.message]
    if finding.modules:
        lines.append("modules: " + ", ".join(fold(finding.modules)[:8]))
    if finding.source is not None and finding.source.library:
        lines.append(f"at {finding.source} in {finding.source.function}: {finding.source.code.strip()}")
    if finding.fix:
        lines.append(f"fix: {finding.fix}" + (f" (verified: {finding.verified or 'yes'})" if finding.fix_verified else ""))
    return visible("\n".join(lines), keep="\n")


def _data(text: str) -> str:
    """Escaped as the runner unescapes it, so that no name can end the command or start another."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(visible(text)).replace(":", "%3A").replace(",", "%2C")
