"""What a rule is. One module of this package holds one rule; see CONTRIBUTING for how to add one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from peft_inspect.records import AdapterFile, Finding, Severity, Source, Structure, Trace

if TYPE_CHECKING:
    import torch

NO_VALUES = "needs values: run with --weights random or pretrained"
Evidence = TypeVar("Evidence", Structure, Trace, AdapterFile)


@dataclass(frozen=True)
class Example:
    """A tiny runnable program: the arguments of `peft_inspect.check`."""

    model: torch.nn.Module
    batch: Mapping[str, Any] | None = None
    loss: Callable[[Any, Any], torch.Tensor] | None = None
    optimizer: torch.optim.Optimizer | None = None
    adapter: str | None = None


@dataclass(frozen=True)
class Rule(Generic[Evidence]):
    """A diagnosis: the evidence it reads, the check, and two examples that hold it to its word.

    `explained_by` names rules that are more specific: a layer they explain is no longer this rule's.
    `needs_values` marks rules that are skipped on models without weights.
    `skip` gives the reason why the evidence cannot be judged, or None.
    """

    code: str
    name: str
    severity: Severity
    over: type[Evidence]
    check: Callable[[Evidence], Iterable[Finding]]
    broken: Callable[[], Example]
    fixed: Callable[[], Example]
    explained_by: tuple[str, ...] = ()
    needs_values: bool = False
    skip: Callable[[Evidence], str | None] | None = None

    def finding(
        self,
        message: str,
        modules: Iterable[str] = (),
        *,
        fix: str,
        source: Source | None = None,
        facts: Mapping[str, Any] | None = None,
        remedy: str | None = None,
        severity: Severity | None = None,
        explains: bool = True,
    ) -> Finding:
        """A finding of this rule. `remedy` names what `fixes.fixes` can try; None: the fix cannot be tried."""
        return Finding(
            code=self.code,
            rule=self.name,
            severity=severity or self.severity,
            message=message,
            modules=tuple(dict.fromkeys(modules)),
            source=source,
            facts=dict(facts or {}),
            fix=fix,
            remedy=remedy,
            explains=explains,
        )
