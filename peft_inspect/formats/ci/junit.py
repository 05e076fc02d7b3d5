"""JUnit XML: one test case per rule. An error is a failure; warnings and notes are told and fail nothing, as with --fail-on error."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TextIO
from xml.etree import ElementTree as ET  # writes only: nothing is parsed

from peft_inspect.formats.names import fold, visible
from peft_inspect.records import Diagnosis, Finding, Outcome, Severity

# What XML 1.0 cannot hold, not even escaped.
_NO_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


def write(report: Diagnosis, out: TextIO) -> None:
    """One document with one suite."""
    cases = [_case(outcome, report) for outcome in report.outcomes]
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
    }
    seconds = getattr(report, "timings", {}).get("total_s", 0.0)
    numbers = {name: str(count) for name, count in counts.items()} | {"time": f"{seconds:.3f}"}
    suite = ET.Element("testsuite", {"name": _clean(report.source), **numbers})
    suite.extend(cases)
    out.write(document((suite,)))


def document(suites: Iterable[ET.Element]) -> str:
    """The whole text of a file. Its root counts what the schema of Jenkins has there: no skipped cases."""
    root = ET.Element("testsuites", {"name": "peft-inspect"})
    root.extend(suites)
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in root):.3f}")
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def not_inspected(target: str, why: str) -> ET.Element:
    """The suite of a target that could not be inspected: one case, an error."""
    suite = ET.Element("testsuite", {"name": _clean(target), "tests": "1", "failures": "0", "errors": "1", "skipped": "0", "time": "0"})
    case = ET.SubElement(suite, "testcase", {"classname": f"peft-inspect.{_clean(target)}", "name": "inspection", "time": "0"})
    ET.SubElement(case, "error", {"message": _clean(why), "type": "not-inspected"})
    return suite


def _case(outcome: Outcome, report: Diagnosis) -> ET.Element:
    case = ET.Element(
        "testcase", {"classname": f"peft-inspect.{_clean(report.source)}", "name": f"{outcome.code} {outcome.rule}", "time": "0"}
    )
    findings = [finding for finding in report.findings if finding.code == outcome.code]
    failures = [finding for finding in findings if finding.severity is Severity.ERROR]
    if outcome.status == "crashed":
        ET.SubElement(case, "error", {"message": _clean(outcome.why), "type": "crashed"})
    elif outcome.status in ("skipped", "ignored"):
        ET.SubElement(case, "skipped", {"message": _clean(f"{outcome.status}: {outcome.why}")})
    elif failures:
        failure = ET.SubElement(case, "failure", {"message": _clean(failures[0].message), "type": outcome.rule})
        failure.text = _clean("\n\n".join(map(_text, failures)))
    told = [finding for finding in findings if finding not in failures]
    if told:
        ET.SubElement(case, "system-out").text = _clean("\n\n".join(map(_text, told)))
    return case


def _text(finding: Finding) -> str:
    lines = [f"{finding.severity}: {finding.message}"]
    lines += [f"  {path or '(root)'}" for path in fold(finding.modules)]
    if finding.source is not None:
        lines.append(f"at {finding.source} in {finding.source.function}: {finding.source.code.strip()}")
    if finding.fix:
        lines.append(f"fix: {finding.fix}")
    return "\n".join(lines)


def _clean(text: str) -> str:
    return visible(_NO_XML.sub("\N{REPLACEMENT CHARACTER}", text), keep="\n\t")
