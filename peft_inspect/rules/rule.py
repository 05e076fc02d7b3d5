"""What a rule is. One module of this package holds one rule; see CONTRIBUTING for how to add one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from peft_inspect.records import (
    AdapterFile,
    Conversion,
    Finding,
    Origin,
    Pinned,
    Pins,
    Remedy,
    Severity,
    Source,
    Structure,
    Trace,
    Unexplained,
)

if TYPE_CHECKING:
    import torch

NO_VALUES = "needs values: run with --weights random or pretrained"
Evidence = TypeVar("Evidence", Structure, Trace, Unexplained, AdapterFile, Pinned)


class Symptom(Enum):
    """What is seen of an adapter layer that does not learn."""

    NO_GRADIENT = "no gradient"
    ZERO_GRADIENT = "a gradient of zero"


class Tier(IntEnum):
    """How much a rule says of why a layer has its symptom. Of the rules that speak of one layer the lowest tier is right.

    The order is that of the way from the layer to the loss: what happens first leaves nothing for what comes later.
    """

    CAUSE = 1  # the line that goes around the layer, or the state that it is in
    MODE = 2  # where gradients were off when it ran
    LOSS = 3  # the line that made the loss without a graph
    CUT = 4  # where the way from its output to the loss ends
    UNUSED = 5  # the loss does not depend on it, wherever that is decided
    SYMPTOM = 6  # only that something is wrong


@dataclass(frozen=True)
class Example:
    """A tiny runnable program: the arguments of `peft_inspect.check`, or one training step of its own, for `peft_inspect.watch`.

    `merged` are the folders that `check MERGED --adapter ADAPTER --base BASE` compares.
    """

    model: torch.nn.Module
    batch: Mapping[str, Any] | None = None
    loss: Callable[[Any, Any], torch.Tensor] | None = None
    optimizer: torch.optim.Optimizer | None = None
    adapter: str | None = None
    pins: Pins | None = None
    step: Callable[[], None] | None = None
    merged: tuple[str, str] | None = None  # a merged checkpoint and its base


@dataclass(frozen=True)
class Rule(Generic[Evidence]):
    """A diagnosis: the evidence it reads, the check, and two examples that hold it to its word.

    `tier` says how much a finding explains of its `symptom`. A rule without a tier stands beside the others.
    `gives_way_to` names the rules that explain this one's layers whatever the tiers say, and `because` why.
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
    tier: Tier | None = None
    symptom: Symptom = Symptom.NO_GRADIENT
    gives_way_to: tuple[str, ...] = ()
    because: str = ""
    needs_values: bool = False
    skip: Callable[[Evidence], str | None] | None = None

    def after(self, other: Rule[Any]) -> bool:
        """Whether a layer that `other` explains is no longer this rule's."""
        if self.tier is not None and other.tier is not None and self.symptom is other.symptom and other.tier < self.tier:
            return True
        return other.code in self.gives_way_to

    def finding(
        self,
        message: str,
        modules: Iterable[str] = (),
        *,
        fix: str,
        source: Source | None = None,
        facts: Mapping[str, Any] | None = None,
        remedy: Remedy | None = None,
        adapter: str | None = None,
        zero: bool = False,
        ignore_index: int | None = None,
        suggestion: Mapping[str, Any] | None = None,
        conversion: Conversion | None = None,
        origin: Origin | None = None,
        severity: Severity | None = None,
        explains: bool = True,
    ) -> Finding:
        """A finding of this rule. What fixes go by is shown among its facts as well."""
        typed = {"adapter": adapter, "zero": zero or None, "ignore_index": ignore_index, "suggestion": suggestion}
        return Finding(
            code=self.code,
            rule=self.name,
            severity=severity or self.severity,
            message=message,
            modules=tuple(dict.fromkeys(modules)),
            source=source,
            facts={**(facts or {}), **{name: value for name, value in typed.items() if value is not None}},
            fix=fix,
            remedy=remedy,
            adapter=adapter,
            zero=zero,
            ignore_index=Finding.ignore_index if ignore_index is None else ignore_index,
            suggestion=suggestion or {},
            conversion=conversion,
            origin=origin,
            explains=explains,
        )
