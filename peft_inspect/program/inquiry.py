"""What the steps of a program are used for, one after another: watching, following the data flow, trying the fixes.

Nothing is run besides the program's own steps: the first one tells whether anything is wrong, and only then are more of them used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from peft_inspect.diagnose import Evidence, diagnose
from peft_inspect.fixes.candidate import Candidate
from peft_inspect.fixes.fixes import ALTERNATIVES
from peft_inspect.fixes.trials import Trial
from peft_inspect.program.followed import Manner, Values, has_wrong_values, is_nonfinite, of_gradients, scale_for
from peft_inspect.program.live import live_optimizers, optimizers_of
from peft_inspect.program.ranks import Ranks
from peft_inspect.program.roots import Root
from peft_inspect.program.together import all_go_on, share_findings, share_gradients, share_updates
from peft_inspect.records import AdapterFile, Diagnosis, Finding, Remedy, Structure, Subject, Trace, Unexplained
from peft_inspect.rules import Rule
from peft_inspect.rules.updates import begins_with_nothing
from peft_inspect.run.gradients import zeros_at_init
from peft_inspect.run.origins import placed
from peft_inspect.structure.wrappers import class_of, inside
from peft_inspect.trace.watching import needs_following

if TYPE_CHECKING:
    from torch import nn

Phase = Literal["watch", "settle", "follow", "try", "done"]
Look = Literal["flow", "values", "scaled", "perturbed"]
_WORDS: Mapping[Look, str] = {
    "flow": "data flow",
    "values": "data flow and values",
    "scaled": "a loss scaled up",
    "perturbed": "weights moved off zero",
}
_NEEDS_THE_BATCH = frozenset({Remedy.LABELS, Remedy.FLOAT32})  # the program makes its batches itself


@dataclass
class Judged:
    """One model of the program, what was seen of it and what that means."""

    model: nn.Module
    name: str
    root: Root
    trace: Trace
    diagnosis: Diagnosis
    looks: tuple[Look, ...] = ()  # what further steps of it were looked at for
    values: Values | None = None  # of the first step that was measured


class Inquiry:
    """The state of the question. `phase` says what the next step is for."""

    def __init__(
        self,
        source: str,
        rules: Sequence[Rule[Any]],
        ignore: Mapping[str, str],
        steps: int,
        *,
        verify: bool,
        ends: Callable[[Iterable[Diagnosis]], bool] = lambda _: True,
    ) -> None:
        """`ends` tells whether the program is stopped after this answer; only then are fixes tried in it."""
        self._source = source
        self._rules = rules
        self._ignore = ignore
        self.steps = steps
        self._verify = verify
        self._ends = ends
        self._used: list[str] = []
        self._models: list[Judged] = []
        self._unadapted: dict[str, Diagnosis] = {}
        self._left: list[tuple[Judged, Finding, tuple[Finding, ...]]] | None = None
        self.trial: Trial | None = None
        self._tried: tuple[Judged, Finding] | None = None
        self.ranks: Ranks | None = None
        self.phase: Phase = "watch"
        self.as_written = False  # whether what the program has compiled runs as it was written

    def take(self, roots: Iterable[Root]) -> None:
        """One step has ended; `roots` are the models that it trained.

        Raises:
            NoVerdictError: the processes of the program did not come to the end of the step together.
        """
        roots = tuple(roots)
        if self.ranks is not None:
            share_gradients(self.ranks, _by_name(roots))
        trying, self._tried = self._tried, None
        if trying is not None:
            self._outcome(trying, roots)
        elif self.phase == "follow":
            looks = [self._look(judged) for judged in self._models]
            self._used.append(_WORDS[max(looks, key=list(_WORDS).index)])
            for judged, look in zip(self._models, looks, strict=True):
                self._follow(judged, look, next((root for root in roots if root.model is judged.model), None))
        else:
            self._used.append("gradients and update" if any(root.hidden for root in roots) else "calls, gradients and update")
            self._watch(roots)
        self.phase = self._next()
        if self.ranks is not None:
            self.phase = all_go_on(self.ranks, self.phase)

    def manner(self, model: nn.Module) -> Manner | None:
        """How the step of this model that begins is looked at, if more closely than the first one."""
        judged = next((judged for judged in self._models if judged.model is model), None)
        if self.phase != "follow" or judged is None:
            return None
        look = self._look(judged)
        if look != "flow":
            judged.root.take_back()
        measured = self._alone and has_wrong_values(judged.trace)
        return Manner(judged.trace, measured, look == "perturbed", scale_for(judged.trace.loss) if look == "scaled" else 1.0)

    def _look(self, judged: Judged) -> Look:
        """What the next step of this model is looked at for: as it is, then where that ends the program anyway with changes."""
        if not has_wrong_values(judged.trace) or not self._stops:
            return "flow"
        if not judged.looks:
            return "values"
        halves = judged.values is not None and judged.values.halves
        changes: tuple[Look, ...] = ("scaled", "perturbed") if halves else ("perturbed",)
        left = [look for look in changes if look not in judged.looks]
        if len(self._used) + len(left) < self.steps:
            return "flow"  # a batch alone can be the cause of zeros: the next ones may tell, before anything is changed
        return next(iter(left), "flow")

    @property
    def _alone(self) -> bool:
        return self.ranks is None or self.ranks.size == 1

    @property
    def _stops(self) -> bool:
        """Whether the program is stopped in any case once this is answered: then its weights and losses may be changed."""
        return self._alone and self._ends([judged.diagnosis for judged in self._models])

    def forget(self) -> None:
        """Hold nothing of the program any longer."""
        self._models.clear()
        self._left, self._tried, self.trial = None, None, None

    @property
    def warmed_up(self) -> bool:
        """Whether a schedule that began with a learning rate of 0 gives another one now: then the step before was that of a warm-up."""
        open_ones = [judged.root for judged in self._models if _is_open(judged.trace)]
        return self.phase == "watch" and bool(open_ones) and all(any(_rates(root)) for root in open_ones)

    def trains(self, model: nn.Module | None) -> bool:
        """Whether the step that was watched trained this model."""
        return any(judged.model is model for judged in self._models)

    def settle(self) -> None:
        """A model has run again: whether what the step moved is where it was put."""
        for judged in self._models:
            undone = judged.root.updates.undone()
            if undone and judged.trace.update is not None:
                judged.trace = replace(judged.trace, update=replace(judged.trace.update, undone=undone))
                judged.diagnosis = self._judge(judged.root, judged.trace)

    def put_together(self) -> None:
        """The findings of all processes, at the end of the inquiry.

        Raises:
            NoVerdictError: there is no verdict of all of them.
        """
        for judged in self._models:
            if judged.root.gated and not judged.looks:  # one step cannot tell what waits for a gate to move from what is dead
                trace = judged.trace
                rows = zeros_at_init(trace.gradients, trace.dead_after_perturbing)
                judged.trace = replace(trace, gradients=rows, dead_after_perturbing=frozenset())
                judged.diagnosis = self._judge(judged.root, judged.trace)
        if self.ranks is not None:
            found = share_findings(self.ranks, {judged.name: judged.diagnosis for judged in self._models})
            for judged in self._models:
                judged.diagnosis = found[judged.name]

    def diagnoses(self) -> dict[str, Diagnosis]:
        """What is known by now, by model."""
        seen = {judged.name: judged.diagnosis for judged in self._models} or self._unadapted
        return {name: replace(diagnosis, steps=tuple(self._used)) for name, diagnosis in seen.items()}

    @property
    def found(self) -> bool:
        """Whether anything is wrong."""
        return any(judged.diagnosis.findings for judged in self._models)

    def take_unadapted(self, structures: Mapping[str, Structure]) -> None:
        """The program trains these models, and none with an adapter."""
        missing: Mapping[type, str] = dict.fromkeys((Trace, Unexplained, AdapterFile), "the model that is trained holds no adapter")
        for name, structure in structures.items():
            self._unadapted[name] = diagnose(self._source, Evidence(structure, missing=missing), self._rules, self._ignore)

    def _watch(self, roots: Iterable[Root]) -> None:
        """One step of each model; a further one takes the place of one that could not be judged."""
        named = _by_name(roots)
        earlier = {id(judged.model): judged.trace for judged in self._models}
        kept = (judged for judged in self._models if not judged.root.hidden)
        self._models = [judged for judged in kept if all(judged.model is not root.model for root in named.values())]
        traces: Mapping[str, Trace] = {name: root.trace() for name, root in named.items()}
        if self.ranks is not None:
            traces = share_updates(self.ranks, traces)
        for name, root in named.items():
            trace = traces[name]
            trace = _held_to(replace(trace, dead_after_perturbing=root.zeros(trace)), earlier.get(id(root.model)))
            self._models.append(Judged(root.model, name, root, trace, self._judge(root, trace)))

    def _judge(self, root: Root, trace: Trace) -> Diagnosis:
        missing: Mapping[type, str] = {AdapterFile: "no adapter was loaded"}
        evidence = Evidence(trace.structure, trace, trace.adapter_files, missing)
        rules = of_gradients(self._rules, trace) if root.hidden else self._rules
        diagnosis = diagnose(self._source, evidence, rules, self._ignore)
        if not diagnosis.findings:
            return diagnosis
        own = {id(optimizer) for optimizer in optimizers_of(root.trainable)}
        optimizers = sorted(live_optimizers(), key=lambda optimizer: id(optimizer) in own)
        return replace(diagnosis, findings=tuple(placed(diagnosis.findings, root.model, root.changes, optimizers)))

    def _follow(self, judged: Judged, look: Look, root: Root | None) -> None:
        """Its data flow, and which zeros were those of one step only."""
        if root is None:
            return
        judged.looks += (look,)
        awake = frozenset(layer.path for layer in judged.trace.structure.adapter_layers if _moves(root, layer.parameters))
        trace = judged.trace
        zeros = trace.dead_after_perturbing - awake
        rows = zeros_at_init(trace.gradients, trace.dead_after_perturbing & awake)
        if look == "scaled":
            trace = replace(trace, underflow=trace.dead_after_perturbing & awake)
        else:
            trace = replace(trace, gradients=rows, dead_after_perturbing=zeros)
        if root.followed is not None:
            values = root.followed.values()
            judged.values = judged.values or values
            trace = root.followed.explained(trace, values, judged.values if look == "perturbed" else None)
        if (
            judged.trace.zero_for_good
            and not trace.zero_for_good
            and not is_nonfinite(trace)
            and root.batch is not None
            and look in ("flow", "values")
        ):
            trace = replace(trace, batch=root.batch)  # the first batch alone was the cause of zeros, which do no harm
        judged.trace, judged.diagnosis = trace, self._judge(judged.root, trace)

    def _next(self) -> Phase:
        """What the next step is for."""
        if len(self._used) >= self.steps:
            return "done"
        if any(judged.root.hidden for judged in self._models):
            wanted = any(map(_looks_wrong, self._models))
            self.as_written = wanted if self.ranks is None else any(self.ranks.exchange(wanted))
            return "watch" if self.as_written else "done"
        if self.phase == "watch" and any(_is_open(judged.trace) for judged in self._models):
            return "watch"
        if not self.found and self.ranks is None:
            moved = self.phase == "watch" and any(judged.root.updates.has_moved for judged in self._models)
            return "settle" if moved else "done"
        if self.phase == "watch" and any(self._needs_more(judged.trace) for judged in self._models):
            return "follow"
        if self.phase == "follow" and any(judged.trace.zero_for_good for judged in self._models):
            looks = [self._look(judged) for judged in self._models if judged.trace.zero_for_good]
            if any(look != "flow" for look in looks) or len(self._used) + 1 < self.steps:
                return "follow"  # a batch alone can be the cause of zeros: the next one may tell
        return self._try()

    def _needs_more(self, trace: Trace) -> bool:
        return needs_following(trace) or (is_nonfinite(trace) and self._stops)

    def _try(self) -> Phase:
        """The next remedy, if any is left: those of each finding, then all of them together where one hides behind another."""
        if not self._verify or not self._ends([judged.diagnosis for judged in self._models]):
            return "done"
        if self.ranks is not None and self.ranks.size > 1:
            return "done"  # a reducer remembers the graph of a step
        if self._left is None:
            self._left = list(self._trials())
        if not self._left:
            return "done"
        judged, finding, applied = self._left.pop(0)
        subject = Subject(judged.model, type(judged.model).__name__)
        self.trial = Trial(Candidate(subject, judged.trace, finding, {}), applied)
        self._tried = judged, finding
        return "try"

    def _trials(self) -> Iterator[tuple[Judged, Finding, tuple[Finding, ...]]]:
        pairs = [
            (judged, finding)
            for judged in self._models
            for finding in judged.diagnosis.findings
            if finding.remedy is not None and finding.remedy not in _NEEDS_THE_BATCH
        ]
        for judged, finding in pairs:
            yield judged, finding, (finding,)
        for judged, finding in pairs:
            if finding.remedy is not None and (other := ALTERNATIVES.get(finding.remedy)) is not None:
                yield judged, finding, (replace(finding, remedy=other),)
            others = [other for _, other in pairs if other is not finding]
            if others:
                yield judged, finding, (finding, *others)

    def _outcome(self, tried: tuple[Judged, Finding], roots: Iterable[Root]) -> None:
        judged, finding = tried
        self._used.append(f"the fix of {finding.code}")
        root = next((root for root in roots if root.model is judged.model), None)
        if self.trial is None or root is None:
            return
        worked, said = self.trial.outcome(root.connected, root.in_graph)
        new = replace(finding, fix_verified=worked, verified=said, tried_in=len(self._used))
        findings = tuple(new if _is(other, finding) else other for other in judged.diagnosis.findings)
        judged.diagnosis = replace(judged.diagnosis, findings=findings)
        if worked and self._left:
            self._left = [left for left in self._left if not _is(left[1], finding)]


def _looks_wrong(judged: Judged) -> bool:
    """Whether its gradients alone give reason to look at the calls, in a further step that is not compiled."""
    trace = judged.trace
    return not judged.root.gated and bool(judged.diagnosis.at_or_above("error") or trace.dead or has_wrong_values(trace))


def _rates(root: Root) -> list[Any]:
    """The learning rates of the optimizers that hold its weights, as they are now."""
    return [group.get("lr") for optimizer in optimizers_of(root.trainable) for group in getattr(optimizer, "param_groups", ())]


def _is_open(trace: Trace) -> bool:
    """Whether only a further step can tell: a learning rate of 0 so far is how a warm-up begins."""
    return trace.update is not None and begins_with_nothing(trace) and not trace.update.stays_zero


def _held_to(trace: Trace, earlier: Trace | None) -> Trace:
    """The trace of a further step, with what became of a schedule that gave 0 before."""
    if trace.update is None or earlier is None or earlier.update is None or not begins_with_nothing(trace):
        return trace
    before, now = earlier.update.schedule, trace.update.schedule
    return replace(trace, update=replace(trace.update, stays_zero=before is not None and now is not None and now > before))


def _by_name(roots: Iterable[Root]) -> dict[str, Root]:
    """By class; by the line that calls it as well, where there are several of one class."""
    named: dict[str, Root] = {}
    for root in roots:
        name = class_of(inside(root.model)).__name__
        named[f"{name} ({root.called})" if name in named and root.called else name] = root
    return named


def _is(one: Finding, other: Finding) -> bool:
    """Whether it is the same finding, tried or not."""
    return (one.code, one.modules, one.source) == (other.code, other.modules, other.source)


def _moves(root: Root, paths: Iterable[str]) -> bool:
    return any(path in root.rows and root.rows[path].state in ("ok", "zero-at-init") for path in paths)
