"""What the evidence means: findings, and what became of every rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from peft_inspect.records.adapter_file import AdapterFile
from peft_inspect.records.basics import Severity, Source
from peft_inspect.records.structure import Structure
from peft_inspect.records.trace import Trace

Status = Literal["clean", "found", "skipped", "ignored", "crashed"]


@dataclass(frozen=True)
class Finding:
    """A fault with its facts."""

    code: str
    rule: str
    severity: Severity
    message: str
    modules: tuple[str, ...] = ()
    source: Source | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    fix: str = ""
    fix_verified: bool | None = None
    verified: str | None = None  # "384/384 parameters train with use_reentrant=False"
    remedy: str | None = None  # the name of the remedy in `fixes.fixes` that tries the fix
    explains: bool = True  # rules that this one explains away leave its modules to it


@dataclass(frozen=True)
class Outcome:
    """What became of one rule, so that "no findings" can never mean "nothing ran"."""

    code: str
    rule: str
    status: Status
    why: str = ""
    severity: Severity | None = None  # of the rule
    help: str = ""  # the rule's page: its title, why it matters, what to do


@dataclass(frozen=True)
class Diagnosis:
    """All evidence and all conclusions, sorted, without a clock."""

    source: str
    structure: Structure
    trace: Trace | None
    findings: tuple[Finding, ...]
    outcomes: tuple[Outcome, ...]
    adapter_files: tuple[AdapterFile, ...] = ()

    def at_or_above(self, severity: Severity | str) -> tuple[Finding, ...]:
        """Findings at least as severe as `severity`; none for "never"."""
        if severity == "never":
            return ()
        limit = Severity(severity).rank
        return tuple(finding for finding in self.findings if finding.severity.rank <= limit)
