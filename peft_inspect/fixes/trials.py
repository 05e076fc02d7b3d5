"""Fixes that can be tried are tried: applied in memory, the same batch run again, everything undone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace

from peft_inspect.batch import make_batch
from peft_inspect.fixes.candidate import Candidate
from peft_inspect.fixes.fixes import ALTERNATIVES, fix_for
from peft_inspect.records import Finding, Remedy, Subject, Trace
from peft_inspect.run.graph import leaves, upstream
from peft_inspect.run.runs import backward, forward, own_copy, runnable
from peft_inspect.run.undisturbed import undisturbed
from peft_inspect.trace.operations import Operations
from peft_inspect.trace.threads import following_threads, handed_on_by


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


def _trial(subject: Subject, trace: Trace, finding: Finding, applied: Iterable[Finding]) -> tuple[bool | None, str]:
    """Whether gradients arrive in the layers of `finding` with the remedies of `applied` (None: not judged), and how many."""
    batch = own_copy(make_batch(subject)[0])
    candidate = Candidate(subject, trace, finding, batch)
    with undisturbed(subject.model) as guard, ExitStack() as stack:
        operations = stack.enter_context(Operations(guard))
        names, exchanges = [], []
        try:
            for other in applied:
                if other.remedy is not None:
                    names.append(other.remedy.value)
                    exchanges.append(stack.enter_context(fix_for(other.remedy)(replace(candidate, finding=other))))
            stack.enter_context(following_threads(handed_on_by(operations, *(exchange for exchange in exchanges if exchange is not None))))
            loss = forward(subject, batch).tensor
            in_graph = leaves(upstream([loss.grad_fn]))
            connected = backward(subject, loss)
        except Exception as error:  # a layer of a kind, or of a release of PEFT, that the remedy does not know
            cause = error.__cause__ or error
            return None, f"not judged: the run with {names[0]} raised {type(cause).__name__}: {cause}"
        outcome = _result(candidate, connected, names[0])
        if not outcome[0] and exchanges[0] is not None and not exchanges[0].acted:
            return None, "not tried: what runs at that line cannot be exchanged"
        if not outcome[0] and finding.remedy is Remedy.THROUGH_ADAPTER and _result(candidate, in_graph, names[0])[0]:
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
