"""The report as Markdown, for job summaries and pull-request comments."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from typing import TextIO

from peft_inspect.formats.answer import answer
from peft_inspect.formats.coverage import coverage_lines, covered
from peft_inspect.formats.findings import verdict
from peft_inspect.formats.gradient_map import gradient_map
from peft_inspect.formats.heatmap import map_lines
from peft_inspect.formats.names import fold, visible
from peft_inspect.formats.screen import Screen
from peft_inspect.formats.targets import HEADS, shown_targets, target_rows
from peft_inspect.formats.text import missing_states
from peft_inspect.formats.totals import gradient_totals, parameter_totals
from peft_inspect.formats.tree.drawing import ModelTree
from peft_inspect.formats.view import View
from peft_inspect.formats.wrappers import chains
from peft_inspect.records import Diagnosis, Finding, Severity, Trace

WIDTH = 100  # columns of what is drawn
FEW = 10  # folded paths per finding
_SIGNS = {Severity.ERROR: "❌", Severity.WARNING: "⚠️", Severity.NOTE: "ℹ️"}  # the sign that renders as an icon
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~-])")


def write(report: Diagnosis, out: TextIO, view: View | None = None) -> None:
    """Write the page."""
    out.write("\n".join(_lines(report, view or View())) + "\n")


def write_failure(why: str, out: TextIO) -> None:
    """What stands in the place of a page where the model could not be inspected."""
    out.write("\n".join(("## ❌ peft-inspect: could not be inspected", *_fenced(why))) + "\n")


def _lines(report: Diagnosis, view: View) -> Iterator[str]:
    counts = Counter(finding.severity for finding in report.findings)
    verdict_line = ", ".join(
        f"{counts[severity]} {severity}{'s' if counts[severity] != 1 else ''}" for severity in Severity if counts[severity]
    )
    yield f"## peft-inspect: {verdict_line or 'no findings'}"
    yield ""
    totals = parameter_totals(report.structure)
    wrapped = "; ".join(str(chain) for chain in chains(report.structure))
    yield f"**{prose(answer(report).plain)}**"
    yield ""
    yield f"{code(report.source)}: {prose(wrapped)}, {totals.total:,} parameters, {totals.trainable:,} trainable"
    if report.trace is not None:
        yield from _gradients(report.trace)
    for finding in report.findings:
        yield from _finding(finding)
    if view.command == "tree":
        tree = ModelTree(report, view)
        drawn = (text.plain.rstrip() for text in tree.branches(view.width or WIDTH))
        yield from _fenced("\n".join((*drawn, *tree.legend)))
        if tree.summary:
            yield ""
            yield prose(tree.summary)
    elif report.trace is not None:
        yield from _map(report.trace, view)
    yield from _targets(report)
    yield from _coverage(report)
    yield from _outcomes(report)


def _map(trace: Trace, view: View) -> Iterator[str]:
    """Folded: a comment on a pull request is to be read without scrolling."""
    screen = Screen(StringIO(), replace(view, width=WIDTH))
    yield ""
    yield "<details><summary>Gradients by layer</summary>"
    lines = map_lines(gradient_map(trace), WIDTH)
    yield from _fenced("\n".join(text.plain.rstrip() for line in lines for text in screen.fitted(line)))
    yield ""
    yield "</details>"


def _gradients(trace: Trace) -> Iterator[str]:
    totals = gradient_totals(trace)
    yield ""
    yield f"**LoRA params with gradients: {totals.with_grad}/{totals.total}**  "
    yield f"LoRA params without gradients: {totals.without_grad}/{totals.total}{missing_states(trace)}  "
    yield f"Other trainable params with gradients: {totals.other_with_grad}/{totals.other}"


def _finding(finding: Finding) -> Iterator[str]:
    yield ""
    yield f"### {_SIGNS[finding.severity]} {finding.code} {prose(finding.rule)} ({finding.severity})"
    yield ""
    message, _, difference = finding.message.partition("\n")
    yield prose(message)
    if difference:
        yield from _fenced(difference, "diff")
    if finding.source is not None:
        yield ""
        yield f"{code(str(finding.source))} in {code(finding.source.function)}"
        yield from _fenced(finding.source.code.strip(), "python")
    folded = fold(finding.modules)
    if folded:
        yield ""
        yield from (f"- {code(path or '(root)')}" for path in folded[:FEW])
        if len(folded) > FEW:
            yield f"- and {len(folded) - FEW} more"
    if finding.fix:
        yield ""
        tried = verdict(finding)
        yield f"**Fix:** {prose(finding.fix)}{f' (verified: {prose(tried)})' if tried else ''}"


def _targets(report: Diagnosis) -> Iterator[str]:
    for adapter in report.structure.adapters:
        if adapter.targets:
            yield ""
            yield f"<details><summary>Targets of adapter {prose(adapter.name)}</summary>"
            yield ""
            yield f"| {' | '.join(HEADS)} |"
            yield "|---|---|--:|---|---|"
            rows = (row for target in shown_targets(adapter) for row in target_rows(target, report.structure))
            yield from (f"| {' | '.join(map(prose, row))} |" for row in rows)
            yield ""
            yield "</details>"


def _coverage(report: Diagnosis) -> Iterator[str]:
    found = covered(report.structure)
    if found is not None:
        _, *drawn = coverage_lines(report.structure, WIDTH)
        yield ""
        yield f"<details><summary>Coverage: {prose(found.said)}</summary>"
        yield from _fenced("\n".join(line.plain for line in drawn))
        yield ""
        yield "</details>"


def _outcomes(report: Diagnosis) -> Iterator[str]:
    statuses = Counter(outcome.status for outcome in report.outcomes)
    yield ""
    counted = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    yield f"<details><summary>{len(report.outcomes)} rules: {counted}</summary>"
    yield ""
    yield "| code | rule | outcome | why |"
    yield "|---|---|---|---|"
    yield from (f"| {outcome.code} | {prose(outcome.rule)} | {outcome.status} | {prose(outcome.why)} |" for outcome in report.outcomes)
    yield ""
    yield "</details>"


def prose(text: str) -> str:
    """Prose in which nothing is markup, a mention or a line break."""
    plain = visible(text.replace("\n", " "))
    return _SPECIAL.sub(r"\\\1", plain).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")


def code(text: str) -> str:
    """A code span that its content cannot end."""
    plain = visible(text)
    ticks = "`" * (_longest_ticks(plain) + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{ticks}{pad}{plain}{pad}{ticks}"


def _fenced(text: str, language: str = "text") -> Iterator[str]:
    """A code block that its content cannot end."""
    plain = visible(text, keep="\n")
    fence = "`" * max(3, _longest_ticks(plain) + 1)
    yield from ("", f"{fence}{language}", plain, fence)


def _longest_ticks(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
