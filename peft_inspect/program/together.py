"""One verdict from what several processes saw.

Every process tells what arrived at its weights. Each then judges its own step, knowing what arrived anywhere, because only it
has the lines of its own calls; the findings are put together, and all processes have the same ones.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from peft_inspect.program.ranks import NoVerdictError, told
from peft_inspect.records import Diagnosis, Finding, GradientInfo, GradientState, Outcome, Remedy, Severity, Source, Trace, Update
from peft_inspect.rules import all_rules
from peft_inspect.rules.rule import Tier
from peft_inspect.run.gradients import zeros_of_initialisation
from peft_inspect.structure.shards import local

if TYPE_CHECKING:
    from peft_inspect.program.inquiry import Phase
    from peft_inspect.program.ranks import Ranks
    from peft_inspect.program.roots import Root

_FOREMOST: tuple[GradientState, ...] = ("nonfinite", "ok", "zero-at-init", "zero", "none", "frozen")
_STATUS = ("crashed", "found", "clean", "ignored", "skipped")


@dataclass(frozen=True)
class Share:
    """What one process knows of one weight."""

    state: GradientState
    squares: float  # the sum of the squares of its gradient
    count: int  # elements that lie here; 0: elsewhere
    zero: bool | None  # every value that lies here is zero


def all_have_ended(ranks: Ranks, *, seen: bool, ended: bool) -> bool:
    """Whether every process that has seen a step is at its end, and any has; each asks at every step of an optimizer.

    Raises:
        NoVerdictError: the others have gone on without this process.
    """
    said = [record for record in ranks.exchange([seen, ended]) if record is not None]
    return any(saw for saw, _ in said) and all(at_end for saw, at_end in said if saw)


def all_go_on(ranks: Ranks, phase: Phase) -> Phase:
    """What the next step is for, where any process has a use for one. A fix is tried in one process alone.

    Raises:
        NoVerdictError: the processes came to no verdict, or the watching of one has failed.
    """
    if ranks.missing:
        return "done"
    said = ranks.exchange(phase)
    if all(wanted == phase for wanted in said) and (ranks.size == 1 or phase == "watch"):
        return phase
    return "follow" if "follow" in said else "done"


def share_gradients(ranks: Ranks, roots: Mapping[str, Root]) -> None:
    """Give every root the gradients of all processes in the place of its own.

    A weight that got a gradient elsewhere has one, but for a layer that ran here and through which none came here.

    Raises:
        NoVerdictError: the processes came to no verdict, or the watching of one has failed.
    """
    if ranks.missing:  # they wait in their backward for what this process does not send: it judges what it saw itself
        return
    own = {name: _shares(root) for name, root in roots.items()}
    said = _all_shares(ranks, own)
    for name, root in roots.items():
        _take_over(root, [of_rank.get(name, {}) for of_rank in said])


def _all_shares(ranks: Ranks, own: Mapping[str, Mapping[str, Share]]) -> list[Mapping[str, Mapping[str, Share]]]:
    """The shares of each rank, by model and path. The paths are sent only where they are not the same everywhere."""
    paths = {name: list(shares) for name, shares in own.items()}
    digest = hashlib.sha256(repr(paths).encode()).hexdigest()
    said = ranks.exchange(
        {"paths": digest, "shares": [[list(vars(share).values()) for share in shares.values()] for shares in own.values()]}
    )
    alike = all(record is None or record["paths"] == digest for record in said)
    named = [paths] * ranks.size if alike else ranks.exchange(paths)
    found: list[Mapping[str, Mapping[str, Share]]] = []
    for record, names in zip(said, named, strict=True):
        if record is None or names is None:
            found.append({})
            continue
        found.append(
            {
                name: {path: Share(*share) for path, share in zip(of_model, shares, strict=True)}
                for (name, of_model), shares in zip(names.items(), record["shares"], strict=True)
            }
        )
    return found


def _shares(root: Root) -> dict[str, Share]:
    shares = {}
    for row in root.rows.values():
        parameter = root.layers.parameters[row.path]
        zero = root.structure.parameter[row.path].zero
        shares[row.path] = Share(_seen(root, row), (row.norm or 0.0) ** 2, local(parameter).numel(), zero)
    return shares


def _seen(root: Root, row: GradientInfo) -> GradientState:
    """The state of the weight's gradient here; where a runtime takes gradients away, as it was when it arrived."""
    arrivals = root.arrivals
    if arrivals is None or not arrivals.takes or row.state == "frozen":
        return row.state
    return arrivals.state(row.path) or row.state


def _take_over(root: Root, said: Sequence[Mapping[str, Share]]) -> None:
    ran = {call.path for call in root.watchers.calls.found() if call.phase == "forward" and not call.empty}
    zero: dict[str, bool | None] = {}
    rows = []
    for row in root.rows.values():
        shares = [of_rank[row.path] for of_rank in said if row.path in of_rank]
        state = _together(shares)
        values = [share.zero for share in shares if share.zero is not None]
        zero[row.path] = all(values) if values else None
        passed_by = row.layer in ran and root.arrivals is not None and root.arrivals.state(row.path) == "none"
        if row.state == "frozen" or passed_by:
            state = "frozen" if row.state == "frozen" else "none"
        whole, held = root.structure.parameter[row.path].numel, sum(share.count for share in shares)
        norm = (
            math.sqrt(sum(share.squares for share in shares) * whole / held)
            if held and state not in ("none", "frozen", "nonfinite")
            else None
        )
        rows.append(replace(row, state="zero" if state == "zero-at-init" else state, norm=norm))
    parameters = tuple(replace(info, zero=zero.get(info.path, info.zero)) for info in root.structure.parameters)
    root.watchers.structure = root.structure = replace(root.structure, parameters=parameters)
    root.rows = {row.path: row for row in zeros_of_initialisation(tuple(rows), root.structure)}


def _together(shares: Sequence[Share]) -> GradientState:
    here = [share.state for share in shares if share.count] or [share.state for share in shares]
    return next(state for state in _FOREMOST if state in here)


def share_updates(ranks: Ranks, traces: Mapping[str, Trace]) -> Mapping[str, Trace]:
    """The traces, where what the step of any process has done to a weight is done: optimizers divide their work among processes.

    Raises:
        NoVerdictError: the processes came to no verdict, or the watching of one has failed.
    """
    if ranks.missing:
        return traces
    said = ranks.exchange({name: {each.path: vars(each) for each in _updates(trace)} for name, trace in traces.items()})
    united = {}
    for name, trace in traces.items():
        everywhere = [record[name] for record in said if record is not None and name in record]
        updates = tuple(_of_its_holder(each, everywhere) for each in _updates(trace))
        united[name] = trace if trace.update is None else replace(trace, update=replace(trace.update, updates=updates))
    return united


def _of_its_holder(own: Update, everywhere: Iterable[Mapping[str, Any]]) -> Update:
    """What was done to a weight by the process whose optimizer holds it; its own where none or each does."""
    if own.held and own.moved:
        return own
    said = [of_rank[own.path] for of_rank in everywhere if own.path in of_rank]
    return Update(**max(said, key=lambda update: (update["held"], update["moved"]), default=vars(own)))


def _updates(trace: Trace) -> tuple[Update, ...]:
    return () if trace.update is None else trace.update.updates


def share_findings(ranks: Ranks, found: Mapping[str, Diagnosis]) -> Mapping[str, Diagnosis]:
    """Every diagnosis with the findings of all processes; what not all of them found says where it was found.

    Raises:
        NoVerdictError: the processes came to no verdict.
    """
    if ranks.missing:
        return _alone(ranks, found)
    said = ranks.exchange(
        {name: [_packed(diagnosis), [outcome.status for outcome in diagnosis.outcomes]] for name, diagnosis in found.items()}
    )
    united = {
        name: _united(diagnosis, [record.get(name) if record else None for record in said], ranks) for name, diagnosis in found.items()
    }
    for rank, record in enumerate(said):
        for name in (record or {}).keys() - found.keys():
            foreign = [_located(finding, [rank], ranks.size, f" in {name}") for finding in map(_unpacked, record[name][0])]
            _add_new(united, foreign)
    return {name: _without_consequences(diagnosis) for name, diagnosis in united.items()}


def _add_new(united: dict[str, Diagnosis], foreign: Iterable[Finding]) -> None:
    """Stages of a pipeline are models of other classes: what was found in one stands in the reports of all."""
    known = {(finding.code, finding.modules, finding.source) for diagnosis in united.values() for finding in diagnosis.findings}
    new = [finding for finding in foreign if (finding.code, finding.modules, finding.source) not in known]
    for name, diagnosis in tuple(united.items())[:1]:
        united[name] = replace(diagnosis, findings=_sorted((*diagnosis.findings, *new)))


def _without_consequences(diagnosis: Diagnosis) -> Diagnosis:
    """A fault of one process leaves others without gradients: where its line is known, what only says that something is wrong goes."""
    symptoms = {rule.code for rule in all_rules() if rule.tier is Tier.SYMPTOM}
    named = {finding.facts.get("found on") for finding in diagnosis.findings if finding.source and finding.code not in symptoms}
    kept = tuple(
        finding
        for finding in diagnosis.findings
        if finding.code not in symptoms or "found on" not in finding.facts or not named - {finding.facts["found on"]}
    )
    return replace(diagnosis, findings=kept)


def _alone(ranks: Ranks, found: Mapping[str, Diagnosis]) -> Mapping[str, Diagnosis]:
    """The diagnoses of this process, where the others wait in their backward for what it does not send them."""
    if not any(diagnosis.findings for diagnosis in found.values()):
        raise NoVerdictError(f"{told(sorted(ranks.missing), ranks.size)} did not come to the end of the step")
    missing = told(sorted(ranks.missing), ranks.size)
    here = told([ranks.rank], ranks.size)
    return {
        name: replace(
            diagnosis,
            findings=tuple(
                replace(finding, message=f"{finding.message}; found on {here}, while {missing} had not come out of the backward")
                for finding in diagnosis.findings
            ),
        )
        for name, diagnosis in found.items()
    }


def _united(diagnosis: Diagnosis, said: Sequence[Any], ranks: Ranks) -> Diagnosis:
    spoke = [rank for rank, record in enumerate(said) if record is not None]
    by_finding: dict[Any, tuple[Finding, list[int]]] = {}
    for rank in spoke:
        for finding in map(_unpacked, said[rank][0]):
            key = (finding.code, finding.message, finding.modules, str(finding.source))
            by_finding.setdefault(key, (finding, []))[1].append(rank)
    findings = [finding if found_on == spoke else _located(finding, found_on, ranks.size) for finding, found_on in by_finding.values()]
    outcomes = tuple(_foremost(outcome, [said[rank][1][at] for rank in spoke]) for at, outcome in enumerate(diagnosis.outcomes))
    return replace(diagnosis, findings=_sorted(findings), outcomes=outcomes)


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda each: (each.severity.rank, each.code, each.modules)))


def _located(finding: Finding, found_on: Sequence[int], size: int, model: str = "") -> Finding:
    where = told(found_on, size)
    return replace(finding, message=f"{finding.message}; found on {where}{model}", facts={**finding.facts, "found on": where})


def _foremost(outcome: Outcome, statuses: Iterable[str]) -> Outcome:
    foremost: Any = min(statuses, key=_STATUS.index, default=outcome.status)
    return (
        outcome
        if foremost == outcome.status
        else replace(outcome, status=foremost, why="" if foremost != "crashed" else "in another process")
    )


def _packed(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    return [{**asdict(finding), "remedy": finding.remedy.name if finding.remedy else None} for finding in diagnosis.findings]


def _unpacked(record: Mapping[str, Any]) -> Finding:
    source, remedy = record["source"], record["remedy"]
    known = {
        **record,
        "severity": Severity(record["severity"]),
        "modules": tuple(record["modules"]),
        "source": Source(**source) if source else None,
        "remedy": Remedy[remedy] if remedy else None,
    }
    return Finding(**known)
