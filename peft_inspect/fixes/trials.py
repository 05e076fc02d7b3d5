"""Fixes that can be tried are tried: applied in memory, the same batch run again, everything undone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from peft_inspect.fixes.candidate import Candidate
from peft_inspect.fixes.exchanges import Exchange
from peft_inspect.fixes.fixes import ALTERNATIVES, fix_for
from peft_inspect.outside import from_outside
from peft_inspect.records import Finding, Remedy, Subject, Trace, text_of
from peft_inspect.run.graph import leaves, let_go, upstream
from peft_inspect.run.runs import backward, forward, own_copy, runnable
from peft_inspect.run.undisturbed import undisturbed
from peft_inspect.trace.operations import Operations
from peft_inspect.trace.threads import following_threads, propagated_from


def verified(subject: Subject, trace: Trace, findings: Iterable[Finding], step: Callable[[str], None]) -> Iterator[Finding]:
    """The findings, those with a remedy tried.

    Where one fault hides behind another, the remedy of one alone shows nothing; then all are tried together.
    """
    findings = tuple(findings)
    tried = [finding for finding in findings if finding.remedy is not None]
    with runnable(subject):
        for finding in findings:
            if finding.remedy is None:
                yield finding
                continue
            step(f"verifying fix {tried.index(finding) + 1} of {len(tried)}")
            outcome = _trial(subject, trace, finding, (finding,))
            if not outcome[0] and (alternative := ALTERNATIVES.get(finding.remedy)):
                other_way = _trial(subject, trace, finding, (replace(finding, remedy=alternative),))
                outcome = other_way if other_way[0] else outcome
            others = [other for other in tried if other is not finding]
            if not outcome[0] and others:
                together = _trial(subject, trace, finding, (finding, *others))
                if together[0]:
                    outcome = (True, f"{together[1]}, together with the fix of {', '.join(sorted({other.code for other in others}))}")
            yield replace(finding, fix_verified=outcome[0], verified=outcome[1])


@let_go()
def _trial(subject: Subject, trace: Trace, finding: Finding, applied: Iterable[Finding]) -> tuple[bool | None, str]:
    """Whether gradients arrive in the layers of `finding` with the remedies of `applied` (None: not judged), and how many."""
    batch = own_copy(subject.batch or {})
    trial = Trial(Candidate(subject, trace, finding, batch), applied)
    with undisturbed(subject.model) as guard:
        operations = Operations(guard)
        try:
            with operations, trial.in_force() as exchanges, following_threads(propagated_from(operations, *exchanges)):
                loss = forward(subject, batch).tensor
                in_graph = leaves(upstream([loss.grad_fn]))
                connected = backward(subject, loss)
        except Exception as error:  # a layer of a kind, or of a release of PEFT, that the remedy does not know
            if from_outside(error):
                raise
            return None, trial.raised(error)
        return trial.outcome(connected, in_graph)


class Trial:
    """The remedies of some findings in force during one run, whoever drives it; the first of them is the one that is asked about."""

    def __init__(self, candidate: Candidate, applied: Iterable[Finding]) -> None:
        self._candidate = candidate
        self._applied = tuple(finding for finding in applied if finding.remedy is not None)
        self._exchanges: list[Exchange | None] = []

    @property
    def name(self) -> str:
        """How reports call the remedy that is asked about."""
        remedy = self._candidate.finding.remedy
        return remedy.value if remedy is not None else ""

    @contextmanager
    def in_force(self) -> Iterator[list[Exchange]]:
        """Do what the findings say to do, as long as it lasts."""
        with ExitStack() as stack:
            for other in self._applied:
                if other.remedy is not None:
                    self._exchanges.append(stack.enter_context(fix_for(other.remedy)(replace(self._candidate, finding=other))))
            yield [exchange for exchange in self._exchanges if exchange is not None]

    def raised(self, error: Exception) -> str:
        """What is said of a run that the remedy, or something in it, broke."""
        cause = error.__cause__ or error
        return f"not judged: the run with {self.name} raised {text_of(cause)}"

    def outcome(self, connected: set[int], in_graph: set[int]) -> tuple[bool | None, str]:
        """Whether gradients arrived, and how many. Both sets are ids of weights: those that one reached, or could have."""
        finding = self._candidate.finding
        outcome = _result(self._candidate, connected, self.name)
        if not outcome[0] and self._exchanges and self._exchanges[0] is not None and not self._exchanges[0].acted:
            return None, "not tried: what runs at that line cannot be exchanged"
        if not outcome[0] and finding.remedy is Remedy.THROUGH_ADAPTER and _result(self._candidate, in_graph, self.name)[0]:
            return None, "not tried: a custom autograd function computes no gradient for the weight that it is given"
        return outcome


def _result(candidate: Candidate, connected: set[int], how: str) -> tuple[bool, str]:
    """Whether every layer got a gradient; for faults of zeros, one that is not zero."""
    weights = candidate.weights
    if candidate.finding.zero:
        alive = sum(any(weight.grad is not None and bool(weight.grad.any()) for weight in of_layer) for of_layer in weights.values())
        return alive == len(weights) > 0, f"{alive}/{len(weights)} layers get gradients that are not zero with {how}"
    arrived = {path: sum(id(weight) in connected for weight in of_layer) for path, of_layer in weights.items()}
    total = sum(len(of_layer) for of_layer in weights.values())
    return bool(arrived) and all(arrived.values()), f"{sum(arrived.values())}/{total} parameters train with {how}"
