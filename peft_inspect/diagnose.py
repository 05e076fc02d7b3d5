"""Evidence and rules → findings and outcomes. Arithmetic on records; torch is not needed here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from peft_inspect.records import AdapterFile, Diagnosis, Finding, InspectionError, Outcome, Structure, Trace
from peft_inspect.rules import NO_VALUES, Rule, all_rules, page


@dataclass(frozen=True)
class Evidence:
    """What the rules are judged on. `missing` says, per evidence type, why there is none."""

    structure: Structure
    trace: Trace | None = None
    adapter_files: tuple[AdapterFile, ...] = ()
    missing: Mapping[type, str] = field(default_factory=dict)

    def of(self, kind: type) -> tuple[Any, ...]:
        """All evidence of one type."""
        if kind is Structure:
            return (self.structure,)
        if kind is Trace:
            return () if self.trace is None else (self.trace,)
        return self.adapter_files


def diagnose(
    source: str, evidence: Evidence, rules: Sequence[Rule[Any]] | None = None, ignore: Mapping[str, str] | None = None
) -> Diagnosis:
    """Judge the evidence by `rules` (default: all). `ignore` maps a code, name or prefix to the reason it is ignored."""
    ignored = {rule.code: reason for pattern, reason in (ignore or {}).items() for rule in named((pattern,))}
    findings: dict[str, tuple[Finding, ...]] = {}
    outcomes: list[Outcome] = []
    for rule in _specific_first(all_rules() if rules is None else rules):
        outcome, found = _judge(rule, evidence, findings, ignored)
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


# What the project's own files are held to. No rules: they are judged where there is such a file, whatever rules are selected.
OWN = {"PI001": "expectation-not-met", "PI002": "lock-changed"}


def named(patterns: Iterable[str]) -> tuple[Rule[Any], ...]:
    """The rules that any of `patterns` names: a code, a name, or a prefix of a code such as PI3. Of OWN it may name any, too.

    Raises InspectionError for a pattern that names no rule.
    """
    chosen: list[Rule[Any]] = []
    for pattern in patterns:
        matches = [rule for rule in all_rules() if names(pattern, rule.code, rule.name)]
        if not matches and not any(names(pattern, code, name) for code, name in OWN.items()):
            known = [name for rule in all_rules() for name in (rule.code, rule.name)]
            closest = difflib.get_close_matches(pattern, known, n=3, cutoff=0.4)
            hint = f"; the closest are {', '.join(closest)}" if closest else ""
            raise InspectionError(f"no rule is called {pattern!r}{hint}. `peft-inspect explain` lists all rules")
        chosen += matches
    return tuple(dict.fromkeys(chosen))


def names(pattern: str, code: str, name: str) -> bool:
    """Whether a pattern stands for a rule."""
    return pattern == name or (bool(pattern) and code.startswith(pattern.upper()))


def _specific_first(rules: Sequence[Rule[Any]]) -> Iterator[Rule[Any]]:
    """The rules in an order in which every rule comes after those that explain it away."""
    by_code = {rule.code: rule for rule in rules}
    done: set[str] = set()

    def visit(rule: Rule[Any]) -> Iterator[Rule[Any]]:
        if rule.code in done:
            return
        done.add(rule.code)
        for code in rule.explained_by:
            if code in by_code:
                yield from visit(by_code[code])
        yield rule

    for rule in rules:
        yield from visit(rule)


def _judge(
    rule: Rule[Any], evidence: Evidence, findings: Mapping[str, tuple[Finding, ...]], ignored: Mapping[str, str]
) -> tuple[Outcome, tuple[Finding, ...]]:
    """One rule's outcome. An ignored rule is judged all the same: what it explains stays explained."""
    pieces = evidence.of(rule.over)
    if not pieces:
        return Outcome(rule.code, rule.name, "skipped", evidence.missing.get(rule.over, "nothing to judge")), ()
    if rule.needs_values and evidence.structure.weights == "none":
        return Outcome(rule.code, rule.name, "skipped", NO_VALUES), ()
    specific = (finding for code in rule.explained_by for finding in findings.get(code, ()) if finding.explains)
    explained = frozenset(path for finding in specific for path in finding.modules)
    try:
        reasons = [rule.skip(piece) if rule.skip else None for piece in pieces]
        judged = [piece for piece, reason in zip(pieces, reasons, strict=True) if reason is None]
        if not judged:
            return Outcome(rule.code, rule.name, "skipped", next(reason for reason in reasons if reason)), ()
        found = tuple(finding for piece in judged for finding in rule.check(_without(piece, explained)))
    except Exception as error:  # a rule that crashes is an outcome that is shown, never a silent pass
        return Outcome(rule.code, rule.name, "crashed", f"{type(error).__name__}: {error}"), ()
    found = tuple(finding for finding in found if not finding.modules or not explained.issuperset(finding.modules))
    if rule.code in ignored:
        return Outcome(rule.code, rule.name, "ignored", ignored[rule.code]), found
    return Outcome(rule.code, rule.name, "found" if found else "clean"), found


def _without(piece: Any, explained: frozenset[str]) -> Any:
    return replace(piece, explained=explained) if isinstance(piece, Trace) and explained else piece
