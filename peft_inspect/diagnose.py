"""Evidence and rules → findings and outcomes. Arithmetic on records; torch is not needed here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any

from peft_inspect.outside import from_outside
from peft_inspect.records import AdapterFile, Diagnosis, Finding, InspectionError, Outcome, Pinned, Structure, Trace, Unexplained, text_of
from peft_inspect.rules import NO_VALUES, Rule, all_rules, page


@dataclass(frozen=True)
class Evidence:
    """What the rules are judged on. `missing` says, per evidence type, why there is none."""

    structure: Structure
    trace: Trace | None = None
    adapter_files: tuple[AdapterFile, ...] = ()
    missing: Mapping[type, str] = field(default_factory=dict)
    pinned: Pinned | None = None

    def of(self, kind: type, explained: frozenset[str]) -> tuple[Any, ...]:
        """All evidence of one type; what is explained already is told beside it."""
        traces = () if self.trace is None else (self.trace,)
        return {
            Structure: (self._structure,),
            Trace: traces,
            Unexplained: tuple(Unexplained(trace, explained) for trace in traces),
            AdapterFile: self.adapter_files,
            Pinned: () if self.pinned is None else (self.pinned,),
        }[kind]

    @cached_property
    def _structure(self) -> Structure:
        """What is there, with what the step showed of it: which of the layers that were asked for took part."""
        if self.trace is None:
            return self.structure
        return replace(
            self.structure, reached=frozenset(layer.path for layer in self.structure.adapter_layers if self.trace.reached(layer))
        )


def diagnose(
    source: str, evidence: Evidence, rules: Sequence[Rule[Any]] | None = None, ignore: Mapping[str, str] | None = None
) -> Diagnosis:
    """Judge the evidence by `rules` (default: all). `ignore` maps a code, name or prefix to the reason it is ignored."""
    ignored = {rule.code: reason for pattern, reason in (ignore or {}).items() for rule in named((pattern,))}
    findings: dict[str, tuple[Finding, ...]] = {}
    outcomes: list[Outcome] = []
    for rule, before in precedence(all_rules() if rules is None else rules).items():
        specific = (finding for code in before for finding in findings[code] if finding.explains)
        explained = frozenset(path for finding in specific for path in finding.modules)
        outcome, found = _judge(rule, evidence, explained, ignored)
        outcomes.append(replace(outcome, severity=rule.severity, help=page(rule)))
        findings[rule.code] = found
    visible = (finding for code, found in findings.items() if code not in ignored for finding in found)
    return Diagnosis(
        source=source,
        structure=evidence.structure,
        trace=evidence.trace,
        findings=tuple(sorted(visible, key=lambda finding: (finding.severity.rank, finding.code, finding.modules))),
        outcomes=tuple(sorted(outcomes, key=lambda outcome: outcome.code)),
        adapter_files=evidence.adapter_files,
    )


def named(patterns: Iterable[str]) -> tuple[Rule[Any], ...]:
    """The rules that any of `patterns` names: a code, a name, or a prefix of a code such as PI3.

    Raises InspectionError for a pattern that names no rule.
    """
    chosen: list[Rule[Any]] = []
    for pattern in patterns:
        matches = [rule for rule in all_rules() if pattern == rule.name or (pattern and rule.code.startswith(pattern.upper()))]
        if not matches:
            known = [name for rule in all_rules() for name in (rule.code, rule.name)]
            closest = difflib.get_close_matches(pattern, known, n=3, cutoff=0.4)
            hint = f"; the closest are {', '.join(closest)}" if closest else ""
            raise InspectionError(f"no rule is called {pattern!r}{hint}. `peft-inspect explain` lists all rules")
        chosen += matches
    return tuple(dict.fromkeys(chosen))


def precedence(rules: Sequence[Rule[Any]]) -> dict[Rule[Any], tuple[str, ...]]:
    """The rules, each behind those that it gives way to, with the codes of these."""
    before = {rule: tuple(other for other in rules if rule.after(other)) for rule in rules}
    return {rule: tuple(other.code for other in before[rule]) for rule in TopologicalSorter(before).static_order()}


def _placed(finding: Finding, piece: Any) -> Finding:
    """What is wrong with a loaded adapter is shown where it was loaded."""
    loaded_at = getattr(piece, "loaded_at", None)
    return finding if finding.source is not None or loaded_at is None else replace(finding, source=loaded_at)


def _judge(
    rule: Rule[Any], evidence: Evidence, explained: frozenset[str], ignored: Mapping[str, str]
) -> tuple[Outcome, tuple[Finding, ...]]:
    """One rule's outcome. An ignored rule is judged all the same: what it explains stays explained."""
    pieces = evidence.of(rule.over, explained)
    if not pieces:
        return Outcome(rule.code, rule.name, "skipped", evidence.missing.get(rule.over, "nothing to judge")), ()
    if rule.needs_values and evidence.structure.weights == "none":
        return Outcome(rule.code, rule.name, "skipped", NO_VALUES), ()
    try:
        reasons = [rule.skip(piece) if rule.skip else None for piece in pieces]
        judged = [piece for piece, reason in zip(pieces, reasons, strict=True) if reason is None]
        if not judged:
            return Outcome(rule.code, rule.name, "skipped", next(reason for reason in reasons if reason)), ()
        found = tuple(_placed(finding, piece) for piece in judged for finding in rule.check(piece))
    except Exception as error:  # a rule that crashes is an outcome that is shown, never a silent pass
        if from_outside(error):
            raise
        return Outcome(rule.code, rule.name, "crashed", text_of(error)), ()
    found = tuple(finding for finding in found if not finding.modules or not explained.issuperset(finding.modules))
    if rule.code in ignored:
        return Outcome(rule.code, rule.name, "ignored", ignored[rule.code]), found
    return Outcome(rule.code, rule.name, "found" if found else "clean"), found
