"""One inspection from beginning to end: structure, step, rules, fixes, and the report of it.

Torch is imported by the first inspection, not by importing this module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from peft_inspect.diagnose import Evidence, diagnose, named
from peft_inspect.environment import environment
from peft_inspect.formats.names import visible
from peft_inspect.lock import locked
from peft_inspect.records import (
    AdapterFile,
    Diagnosis,
    Finding,
    InspectionError,
    Pinned,
    Pins,
    Request,
    Severity,
    Structure,
    Subject,
    Trace,
    Unexplained,
    text_of,
)
from peft_inspect.reversible import put_back_after, uncollected
from peft_inspect.rules import Rule, all_rules
from peft_inspect.tracebacks import of_the_user, raised_by_the_user

if TYPE_CHECKING:
    from peft_inspect.run.changes import Changes

Depth = Literal["tree", "gradcheck", "check"]
Step = Callable[[str], None]
_PINS = {"PI001": "expect", "PI002": "lock"}  # judged where there is something to judge by, whatever rules are selected


class FindingsError(Exception):
    """Raised by `Report.raise_for_findings`; the message is the text report."""


@dataclass(frozen=True, repr=False)
class Report(Diagnosis):
    """What an inspection concluded. `timings` are seconds; nothing else in it depends on the clock."""

    timings: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON report, schema 1, as a dictionary of plain values."""
        from peft_inspect.formats.json import document

        return document(self, self.timings)

    def raise_for_findings(self, fail_on: Severity | str = Severity.ERROR) -> None:
        """Raise FindingsError if any finding is at or above `fail_on`."""
        if self.at_or_above(fail_on):
            raise FindingsError(str(self))

    def html(self) -> str:
        """The report as one HTML page that needs no network: for a file, a mail, an artifact of a CI job."""
        from io import StringIO

        from peft_inspect.formats.html import write

        out = StringIO()
        write(self, out)
        return out.getvalue()

    def __str__(self) -> str:
        from peft_inspect.formats.text import plain

        return plain(self)

    def __repr__(self) -> str:
        """One line: what was inspected, and the answer."""
        from peft_inspect.formats.answer import answer

        return f"<Report of {visible(self.source)}: {answer(self).plain}>"

    def _repr_html_(self) -> str:
        """For notebooks: the text report, and the whole page behind it."""
        from peft_inspect.formats.notebook import shown

        return shown(str(self), self.html())


@dataclass(frozen=True)
class Judging:
    """What an inspection judges by."""

    depth: Depth
    rules: tuple[Rule[Any], ...]
    runs: bool  # whether any rule wants a batch
    ignore: Mapping[str, str]  # code, name or prefix → reason
    verify: bool
    pins: Pins
    activations: bool = False  # what modules hand on and what they cost is measured

    @classmethod
    def of(
        cls,
        depth: Depth,
        select: Iterable[str] = (),
        ignore: Iterable[str] | Mapping[str, str] = (),
        pins: Pins | None = None,
        *,
        verify: bool = True,
        activations: bool = False,
    ) -> Judging:
        """By the rules that are named; what is wrong with a name is said before time is spent.

        Raises:
            InspectionError: no rule is called so.
        """
        pins, select = pins or Pins(), as_patterns(select)
        chosen = named(select) if select else tuple(rule for rule in all_rules() if rule.code not in _PINS)
        if depth == "gradcheck" and not select:
            chosen = tuple(rule for rule in chosen if rule.code.startswith(("PI2", "PI3")) or rule.code == "PI112")
        runs = depth == "gradcheck" or (depth == "check" and any(_needs_batch(rule, pins) for rule in chosen))
        pinned = (rule for rule in all_rules() if rule.code in _PINS and getattr(pins, _PINS[rule.code]) is not None)
        reasons = ignore if isinstance(ignore, Mapping) else dict.fromkeys(as_patterns(ignore), "ignored by the caller")
        named(reasons)
        return cls(depth, tuple(dict.fromkeys((*chosen, *pinned))), runs, reasons, verify, pins, activations)


def inspect(
    request: Request,
    depth: Depth = "check",
    *,
    select: Iterable[str] = (),
    ignore: Iterable[str] | Mapping[str, str] = (),
    verify: bool = True,
    pins: Pins | None = None,
    activations: bool = False,
    step: Step | None = None,
) -> Report:
    """Load what the user named and inspect it; `step` is told what is being done, for a progress display.

    Raises:
        InspectionError: it could not be loaded or run, or its code ends the process; the message says what to do.
    """
    judging = Judging.of(depth, select, ignore, pins, verify=verify, activations=activations)
    step = step or (lambda _: None)
    started = time.perf_counter()
    step("importing torch, transformers and peft")
    with uncollected():
        from peft_inspect.load import load
        from peft_inspect.run.as_device import as_if_on
        from peft_inspect.run.changes import Changes
        from peft_inspect.run.loads import Loads
        from peft_inspect.structure.source.lines import boundary

    boundary(load)
    loads, changes = Loads(), Changes()
    try:
        with loads.watching(), changes.watching(), changes.writing(), _calls_noted(changes):
            subject = load(request, step)
        subject = replace(subject, changes=changes)
        if request.as_device is not None:
            subject = as_if_on(request.as_device, subject)
        if not subject.adapter_files:  # else it was this tool that loaded one
            subject = replace(subject, adapter_files=loads.files(subject.model))
        return inspect_subject(subject, judging, step, time.perf_counter() - started)
    except (KeyboardInterrupt, InspectionError):
        raise
    except BaseException as error:  # the model's code ends the program, or a task: that must not pass for a verdict
        if isinstance(error, Exception) and not raised_by_the_user(error):
            raise
        message = f"{request.model} ended with {text_of(error)} before it could be inspected"
        raise InspectionError(message, detail=of_the_user(error)) from error


@contextmanager
def _calls_noted(changes: Changes) -> Iterator[None]:
    """While the user's code makes the model, note what it runs of it already; without that where torch's modes are not to be had."""
    from peft_inspect.internals import MissingInternalError

    try:
        from peft_inspect.trace.grad_mode import GradSwitches
    except MissingInternalError:
        yield
        return
    switches = GradSwitches()
    with switches.watching(), changes.calls(lambda: region.source if (region := switches.region()) is not None else None):
        yield


def inspect_subject(subject: Subject, judging: Judging, step: Step = lambda _: None, load_s: float = 0.0) -> Report:
    """Inspect a live model; it is left as it was, whatever interrupts."""
    return put_back_after(lambda: _inspect(subject, judging, step, load_s))


def _inspect(subject: Subject, judging: Judging, step: Step, load_s: float) -> Report:
    started = time.perf_counter()
    from peft_inspect.internals import MissingInternalError
    from peft_inspect.structure import adapter_evidence, read_structure

    step("reading the structure")
    structure = read_structure(subject)
    if subject.merged_onto is not None:  # files are compared, and nothing of the model is built to be trained
        step("merging the adapter anew, layer by layer")
        judging = replace(judging, rules=tuple(rule for rule in judging.rules if rule.over is AdapterFile), runs=False)
    if judging.activations:
        from peft_inspect.trace.activations import activations

        structure = replace(structure, activations=activations(subject, structure, step))
    files = adapter_evidence(subject, structure)
    trace: Trace | None = None
    no_batch = "needs a batch: run gradcheck or check"
    if judging.runs:
        try:
            trace = _traced(subject, structure, files, step)
        except MissingInternalError as error:
            if judging.depth == "gradcheck":
                raise
            no_batch = str(error)
    trace_s = time.perf_counter() - started
    missing = {Trace: no_batch, Unexplained: no_batch, AdapterFile: "no adapter file was named"}
    evidence = Evidence(structure, trace, files, missing, _pinned(judging.pins, structure, trace))
    diagnosis = diagnose(subject.source, evidence, judging.rules, judging.ignore)
    findings = _placed(subject, diagnosis.findings)
    if judging.verify and trace is not None:
        from peft_inspect.fixes import verified

        findings = tuple(verified(subject, trace, findings, step))
    timings = {"load_s": load_s, "trace_s": trace_s, "total_s": load_s + time.perf_counter() - started}
    return Report(**{**vars(replace(diagnosis, findings=findings)), "timings": timings})


def _placed(subject: Subject, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    from peft_inspect.run.origins import placed

    optimizers = () if subject.optimizer is None else (subject.optimizer,)
    return tuple(placed(findings, subject.model, subject.changes, optimizers, subject.loss)) if findings else ()


def _traced(subject: Subject, structure: Structure, files: tuple[AdapterFile, ...], step: Step) -> Trace:
    from peft_inspect.trace import run_trace

    return replace(run_trace(subject, structure, step), adapter_files=files)


def _needs_batch(rule: Rule[Any], pins: Pins) -> bool:
    return rule.over in (Trace, Unexplained) or (rule.code == "PI001" and bool(pins.expect and pins.expect.gradients))


def _pinned(pins: Pins, structure: Structure, trace: Trace | None) -> Pinned:
    if pins.lock is None:
        return Pinned(pins, structure, trace, {}, {})
    return Pinned(pins, structure, trace, locked(structure), environment())


def as_patterns(given: Iterable[str]) -> tuple[str, ...]:
    """One name is no collection of its letters."""
    return (given,) if isinstance(given, str) else tuple(given)
