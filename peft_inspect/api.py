"""The Python API. Every command is one call of this module.

Torch is imported by the first inspection, not by importing this module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from peft_inspect.diagnose import Evidence, diagnose, named
from peft_inspect.program.launch import Launch
from peft_inspect.program.undrawn import undrawn
from peft_inspect.records import AdapterFile, Diagnosis, Request, Severity, Structure, Subject, Trace, Unexplained
from peft_inspect.reversible import settled
from peft_inspect.rules import Rule, all_rules

if TYPE_CHECKING:
    import torch

    from peft_inspect.program.executing import Ended

Depth = Literal["tree", "gradcheck", "check"]
Step = Callable[[str], None]


class FindingsError(Exception):
    """Raised by `Report.raise_for_findings`; the message is the text report."""


@dataclass(frozen=True)
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

    def __str__(self) -> str:
        from peft_inspect.formats.text import plain

        return plain(self)


def check(
    model: torch.nn.Module,
    batch: Mapping[str, Any] | None = None,
    *,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    adapter: str | None = None,
    select: Iterable[str] = (),
    ignore: Iterable[str] | Mapping[str, str] = (),
    verify: bool = True,
) -> Report:
    """Judge a live model by every rule: its structure, one watched batch, and an adapter file if one is named.

    The model is afterwards what it was: parameters, gradients, modes, hooks, buffers, RNG and grad mode.

    Args:
        model: the model as it is trained, wrapped or not.
        batch: keyword inputs of `model.forward`; None makes a batch from its signature and config.
        loss: `loss(model, batch)` returning the tensor that is trained. Default: the output's loss,
            else the sum of its floating outputs.
        optimizer: checked to hold the adapter's parameters; never stepped.
        adapter: a folder or hub id of an adapter; its file is checked against the live adapter layers.
        select: codes, names or prefixes of the rules to judge by. Default: all.
        ignore: likewise, to leave out; a mapping gives the reason of each.
        verify: try the fixes in memory and report `fix_verified`.

    Raises:
        InspectionError: the model could not be inspected; the message says what to do.
    """
    return _inspect_live("check", model, batch, loss, optimizer, adapter, select, ignore, verify)


def gradcheck(
    model: torch.nn.Module,
    batch: Mapping[str, Any] | None = None,
    *,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    adapter: str | None = None,
    select: Iterable[str] = (),
    ignore: Iterable[str] | Mapping[str, str] = (),
    verify: bool = True,
) -> Report:
    """The gradient part of `check`: which adapter parameters get a gradient, which do not, and why.

    Takes what `check` takes. This asks whether gradients arrive; `torch.autograd.gradcheck` is another
    thing, a finite-difference test of their values.
    """
    return _inspect_live("gradcheck", model, batch, loss, optimizer, adapter, select, ignore, verify)


def tree(model: torch.nn.Module) -> Any:
    """The wrapper hierarchy of a live model as a rich renderable; `str()` of it gives plain text."""
    from peft_inspect.formats.tree.drawing import ModelTree

    return ModelTree(_inspect_live("tree", model, None, None, None, None, (), (), False))


def inspect(
    request: Request,
    depth: Depth = "check",
    *,
    select: Iterable[str] = (),
    ignore: Iterable[str] | Mapping[str, str] = (),
    verify: bool = True,
    step: Step = lambda _: None,
) -> Report:
    """Load what the user named and inspect it; `step` is told what is being done, for a progress display.

    Raises:
        InspectionError: it could not be loaded or run; the message says what to do.
    """
    started = time.perf_counter()
    rules, reasons = _chosen(depth, select), _reasons(ignore)
    step("importing torch, transformers and peft")
    from peft_inspect.load import load

    subject = load(request, step)
    load_s = time.perf_counter() - started
    return settled(lambda: _inspect(depth, subject, rules, reasons, verify, step, load_s))


@dataclass(frozen=True)
class ProgramRun:
    """How a program ended that was run under watch, and what is to be said of the models that it trains."""

    ended: Ended
    reports: Mapping[str, Report]  # by class; empty where no step was seen
    seen: str  # what was seen instead


def run(
    launch: Launch,
    *,
    select: Iterable[str] = (),
    ignore: Iterable[str] | Mapping[str, str] = (),
    steps: int = 4,
    verify: bool = True,
    goes_on: Callable[[Mapping[str, Report]], bool] = lambda _: False,
) -> ProgramRun:
    """Run a training program as Python would, and watch its first step; the program is stopped once its report is made.

    Args:
        launch: the program.
        select: codes, names or prefixes of the rules to judge by. Default: all.
        ignore: likewise, to leave out; a mapping gives the reason of each.
        steps: how many steps of its optimizer may be used to answer.
        verify: try the fixes in the next steps of the program.
        goes_on: asked with the reports whether the program is to go on, with nothing of the watching left.

    Raises:
        InspectionError: there is no such program; the message says what to do.
    """
    from peft_inspect.program import executing, program

    started = time.perf_counter()
    reports: dict[str, Report] = {}

    def conclude(diagnoses: Mapping[str, Diagnosis]) -> BaseException | None:
        seconds = time.perf_counter() - started
        for name, diagnosis in diagnoses.items():
            reports[name] = Report(**vars(diagnosis), timings={"total_s": seconds})
        with undrawn():
            return None if goes_on(reports) else executing.Stopped()

    ended, seen = program.run(launch, _chosen("check", select), _reasons(ignore), steps, conclude, verify=verify)
    return ProgramRun(ended, reports, seen)


def _inspect_live(
    depth: Depth,
    model: torch.nn.Module,
    batch: Mapping[str, Any] | None,
    loss: Callable[[Any, Any], torch.Tensor] | None,
    optimizer: torch.optim.Optimizer | None,
    adapter: str | None,
    select: Iterable[str],
    ignore: Iterable[str] | Mapping[str, str],
    verify: bool,
) -> Report:
    from peft_inspect.load import live

    rules, reasons = _chosen(depth, select), _reasons(ignore)
    subject = live(model, batch=batch, loss=loss, optimizer=optimizer, adapter=adapter)
    return settled(lambda: _inspect(depth, subject, rules, reasons, verify, lambda _: None, 0.0))


def _inspect(
    depth: Depth, subject: Subject, rules: tuple[Rule[Any], ...], ignore: Mapping[str, str], verify: bool, step: Step, load_s: float
) -> Report:
    started = time.perf_counter()
    from peft_inspect.internals import MissingInternalError
    from peft_inspect.structure import adapter_evidence, read_structure

    step("reading the structure")
    structure = read_structure(subject)
    files = adapter_evidence(subject, structure)
    runs = depth == "gradcheck" or (depth == "check" and any(rule.over in (Trace, Unexplained) for rule in rules))
    no_batch = "needs a batch: run gradcheck or check"
    trace: Trace | None = None
    if runs:
        try:
            trace = _traced(subject, structure, files, step)
        except MissingInternalError as error:
            if depth == "gradcheck":
                raise
            no_batch = str(error)
    trace_s = time.perf_counter() - started
    missing = {Trace: no_batch, Unexplained: no_batch, AdapterFile: "no adapter file was named"}
    diagnosis = diagnose(subject.source, Evidence(structure, trace, files, missing), rules, ignore)
    findings = diagnosis.findings
    if verify and trace is not None:
        from peft_inspect.fixes import verified

        findings = tuple(verified(subject, trace, findings, step))
    timings = {"load_s": load_s, "trace_s": trace_s, "total_s": load_s + time.perf_counter() - started}
    return Report(**{**vars(replace(diagnosis, findings=findings)), "timings": timings})


def _traced(subject: Subject, structure: Structure, files: tuple[AdapterFile, ...], step: Step) -> Trace:
    from peft_inspect.trace import run_trace

    return replace(run_trace(subject, structure, step), adapter_files=files)


def _chosen(depth: Depth, select: Iterable[str]) -> tuple[Rule[Any], ...]:
    rules = named(select) if (select := _patterns(select)) else all_rules()
    if depth == "gradcheck" and not select:
        return tuple(rule for rule in rules if rule.code.startswith(("PI2", "PI3")) or rule.code == "PI112")
    return rules


def _reasons(ignore: Iterable[str] | Mapping[str, str]) -> Mapping[str, str]:
    reasons = ignore if isinstance(ignore, Mapping) else dict.fromkeys(_patterns(ignore), "ignored by the caller")
    named(reasons)  # a name that is wrong is said before the time is spent
    return reasons


def _patterns(given: Iterable[str]) -> tuple[str, ...]:
    """One name is no collection of its letters."""
    return (given,) if isinstance(given, str) else tuple(given)
