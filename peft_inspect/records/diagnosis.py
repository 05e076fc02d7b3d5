"""What the evidence means: findings, and what became of every rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from peft_inspect.records.adapter_file import AdapterFile, Conversion
from peft_inspect.records.basics import Severity, Source
from peft_inspect.records.structure import Structure
from peft_inspect.records.trace import Trace

Status = Literal["clean", "found", "skipped", "ignored", "crashed"]


class Remedy(Enum):
    """A fix that can be tried: `fixes` does it in memory to the live model and undoes it. The value is how reports call it."""

    NON_REENTRANT = "use_reentrant=False"
    INPUT_GRADIENTS = "inputs that require grad"
    UNFREEZE = "requires_grad=True"
    GRADIENTS_ON = "gradients left on"
    ENABLE = "adapters enabled"
    UNMERGE = "adapters unmerged"
    ACTIVATE = "the adapter active"
    THROUGH_ADAPTER = "the adapter applied where the weight is read"
    THROUGH_COPY = "the adapter applied to the copy of its weight"
    THROUGH_LAYER = "the adapter layer called instead"
    THROUGH_ORIGINAL = "the original called instead of its copy"
    ATTACHED = "the graph kept at that line"
    SCALING = "scaling 1.0"
    INITIALISE = "factors that are not zero"
    LABELS = "supervised labels"
    FLOAT32 = "float32 weights"


@dataclass(frozen=True)
class Origin:
    """What left the state that a finding is about, before anything ran: the line that did it is looked for."""

    what: Literal[
        "adapter-config",
        "model-config",
        "optimizer",
        "clipping",
        "frozen",
        "unfrozen",
        "written",
        "collated",
        "cast",
        "added",
        "wrapped",
        "taken-off",
        "checkpointing",
    ]
    names: tuple[str, ...] = ()  # what is looked for in the call, such as the fields of a config: the first that is written there
    adapter: str | None = None
    otherwise: Origin | None = None  # where nothing is known of it
    exact: bool = False  # other things leave this state too: nothing is shown but the line that writes one of the names


@dataclass(frozen=True)
class Finding:
    """A fault. `facts` are there to be shown; what a fix or another rule goes by has a field of its own."""

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
    tried_in: int | None = None  # the step of the program in which the fix was tried
    remedy: Remedy | None = None  # None: the fix cannot be tried
    adapter: str | None = None  # the adapter that it is about; None: those in use
    zero: bool = False  # gradients arrive and are zero, so that a fix has to make them other than zero
    ignore_index: int = -100  # of the labels that it is about
    conversion: Conversion | None = None  # of the adapter file into one that PEFT loads
    suggestion: Mapping[str, Any] = field(default_factory=dict)  # fields of the LoRA config and what they should hold
    origin: Origin | None = None
    explains: bool = True  # more general rules leave its modules to it


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
    accepted: tuple[Finding, ...] = ()  # found, and known: they fail nothing
    steps: tuple[str, ...] = ()  # of the user's own program: what each of those that were watched was for

    def at_or_above(self, severity: Severity | str) -> tuple[Finding, ...]:
        """Findings at least as severe as `severity`; none for "never"."""
        if severity == "never":
            return ()
        limit = Severity(severity).rank
        return tuple(finding for finding in self.findings if finding.severity.rank <= limit)

    @property
    def incomplete(self) -> str | None:
        """Which rules crashed, as a message; None when all ran to their end."""
        crashed = [outcome for outcome in self.outcomes if outcome.status == "crashed"]
        return "; ".join(f"rule {rule.code} {rule.rule} crashed ({rule.why}): the report is incomplete" for rule in crashed) or None
