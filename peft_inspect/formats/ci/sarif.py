"""SARIF 2.1.0, as code scanning takes it: rules with their pages, results with a file, a fingerprint and the modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from peft_inspect.formats.ci.places import Place, fingerprint, place_of
from peft_inspect.formats.names import fold, visible, write_json
from peft_inspect.records import Diagnosis, Finding, Outcome, Severity, Source
from peft_inspect.version import __version__

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVEL: Mapping[Severity, str] = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}
_MOST_MODULES = 100  # logical locations of one result; the count is in its properties


def write(report: Diagnosis, out: TextIO) -> None:
    """One SARIF log and a line break."""
    write_json(document(report), out, allow_nan=False)


def document(report: Diagnosis) -> dict[str, Any]:
    """The log as plain values."""
    rules = list(report.outcomes)
    index = {outcome.code: number for number, outcome in enumerate(rules)}
    seen: Counter[str] = Counter()
    results = []
    for finding in (*report.findings, *report.accepted):
        print_ = fingerprint(finding, report)
        seen[print_] += 1
        result = _result(finding, report, index, f"{print_}:{seen[print_]}")
        results.append(result if finding in report.findings else {**result, "suppressions": [{"kind": "external"}]})
    driver = {
        "name": "peft-inspect",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": [_rule(outcome) for outcome in rules],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [_invocation(report)],
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": {"model": report.source},
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(outcome: Outcome) -> dict[str, Any]:
    title, _, text = outcome.help.partition("\n")
    title = title or outcome.rule
    return {
        "id": outcome.code,
        "name": outcome.rule,
        "shortDescription": {"text": title},
        "fullDescription": {"text": _prose(text) or title},
        "help": {"text": outcome.help or title, "markdown": outcome.help or title},
        "defaultConfiguration": {"level": _LEVEL[outcome.severity or Severity.WARNING]},
        "properties": {"tags": ["lora", "peft"], "precision": "high"},
    }


def _prose(text: str) -> str:
    """The first paragraph after the title."""
    return " ".join(text.strip().partition("\n\n")[0].split())


def _result(finding: Finding, report: Diagnosis, index: Mapping[str, int], print_: str) -> dict[str, Any]:
    place = place_of(finding, report)
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": index[finding.code],
        "level": _LEVEL[finding.severity],
        "message": {"text": _text(finding)},
        "locations": [{"physicalLocation": _physical(place), "logicalLocations": list(_modules(finding))}],
        "partialFingerprints": {"primaryLocationLineHash": print_},
        "properties": {"modules": len(finding.modules), "fixVerified": finding.fix_verified},
    }
    if finding.source is not None and finding.source.library:
        result["relatedLocations"] = [_related(finding.source)]
    return result


def _text(finding: Finding) -> str:
    """What is wrong, where, what to do: the whole of it, since code scanning shows nothing else."""
    parts = [finding.message]
    if finding.modules:
        parts.append("Modules: " + ", ".join(fold(finding.modules)[:8]))
    if finding.fix:
        parts.append(f"Fix: {finding.fix}" + (f" (verified: {finding.verified or 'yes'})" if finding.fix_verified else ""))
    return visible("\n\n".join(parts), keep="\n")


def _physical(place: Place) -> dict[str, Any]:
    region: dict[str, Any] = {"startLine": place.line or 1}
    if place.code:
        region["snippet"] = {"text": place.code}
    return {"artifactLocation": {"uri": place.uri}, "region": region}


def _modules(finding: Finding) -> Iterator[dict[str, str]]:
    for path in finding.modules[:_MOST_MODULES]:
        yield {"fullyQualifiedName": path or "(root)", "kind": "module"}


def _related(source: Source) -> dict[str, Any]:
    """The line inside a library."""
    place = Place(source.file, source.line, source.code)
    return {"id": 1, "message": {"text": f"in {source.function}"}, "physicalLocation": _physical(place)}


def _invocation(report: Diagnosis) -> dict[str, Any]:
    """Rules that crashed make the run unsuccessful: an empty result list must not read as clean."""
    crashed = [outcome for outcome in report.outcomes if outcome.status == "crashed"]
    found: dict[str, Any] = {"executionSuccessful": not crashed}
    if crashed:
        found["toolExecutionNotifications"] = [
            {"level": "error", "message": {"text": f"rule {outcome.code} {outcome.rule} crashed: {outcome.why}"}} for outcome in crashed
        ]
    return found
