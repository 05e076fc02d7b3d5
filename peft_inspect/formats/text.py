"""The report as text: counts that people grep for, then every finding with its cause, its line and its fix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from rich.text import Text

from peft_inspect.formats.answer import answer
from peft_inspect.formats.coverage import coverage_lines
from peft_inspect.formats.findings import finding_lines, headline, outcome_lines
from peft_inspect.formats.gradient_map import gradient_map
from peft_inspect.formats.heatmap import map_lines
from peft_inspect.formats.names import visible
from peft_inspect.formats.norms import norm_lines
from peft_inspect.formats.screen import Line, Screen
from peft_inspect.formats.targets import target_lines
from peft_inspect.formats.totals import gradient_totals, idle_parameters, parameter_totals
from peft_inspect.formats.view import View
from peft_inspect.formats.wrappers import chains
from peft_inspect.records import Diagnosis, GradientInfo, Trace

LONG = 40  # lines below the heading from which the answer stands above them as well
WEIGHTS = {"none": "without weights", "random": "random weights", "pretrained": "pretrained weights", "user": "your weights"}
MADE_BY = {"user": "yours", "signature and config": "made from what the model's forward takes", "the program": "the program's"}


def write(report: Diagnosis, out: TextIO, view: View | None = None) -> None:
    """Write the report for a person to read."""
    screen = Screen(out, view or View())
    screen.show(lines(report, screen))


def plain(report: Diagnosis) -> str:
    """The report as one string, without colours and without wrapping."""
    return "\n".join(line.plain for line in lines(report))


def lines(report: Diagnosis, screen: Screen | None = None) -> Iterator[Line]:
    """What was inspected, the gradient counts, the findings, what became of the rules, and the answer in a sentence.

    On a screen the target table too for check, and the map for gradcheck; a long one begins with the answer as well.
    """
    verbosity = screen.view.verbosity if screen is not None else 0
    if verbosity < 0:
        yield from _summary(report)
        return
    yield from heading(report)
    body = list(_body(report, screen))
    if len(body) > LONG:
        yield Line(Text())
        yield Line(answer(report))
    yield from body
    yield Line(Text())
    yield from outcome_lines(report, skipped=verbosity > 0)
    yield Line(answer(report))


def _summary(report: Diagnosis) -> Iterator[Line]:
    """The counts, a line for every finding, and the answer."""
    yield Line(Text(visible(report.source), style="bold"))
    if report.trace is not None:
        yield from _gradient_lines(report.trace)
    yield from map(headline, report.findings)
    yield Line(answer(report))


def _body(report: Diagnosis, screen: Screen | None) -> Iterator[Line]:
    if screen is not None and screen.view.command == "check" and screen.view.tables and report.structure.adapters:
        yield Line(Text())
        yield from target_lines(report.structure)
        yield from coverage_lines(report.structure, screen.width)
    if report.trace is not None:
        yield Line(Text())
        yield from _gradient_lines(report.trace)
        if screen is not None and screen.view.command == "gradcheck" and report.structure.adapter_layers:
            yield Line(Text())
            yield from map_lines(gradient_map(report.trace), screen.width, ascii_only=screen.ascii)
            if screen.view.norms:
                yield Line(Text())
                yield from norm_lines(report.trace)
    for finding in report.findings:
        yield Line(Text())
        yield from finding_lines(finding, report.structure)


def heading(report: Diagnosis, *, paths: bool = False) -> Iterator[Line]:
    """Source, wrapper chain and if asked for the path of each of its steps, totals, batch, and what loading decided."""
    structure = report.structure
    found = chains(structure)
    if not any(str(chain).startswith(report.source) for chain in found):
        yield Line(Text(visible(report.source), style="bold"))
    for chain in found:
        yield Line(Text(visible(str(chain))))
        if paths and len(chain.steps) > 1:
            yield Line(Text(visible(" → ".join(step.path or "(root)" for step in chain.steps)), style="dim"))
    totals = parameter_totals(structure)
    share = f" ({100 * totals.trainable / totals.total:.2f} %)" if totals.total else ""
    yield Line(
        Text(
            f"parameters {totals.total:,}, trainable {totals.trainable:,}{share}, {WEIGHTS[structure.weights]}, {structure.mode} mode",
            style="dim",
        )
    )
    if report.trace is not None:
        batch = report.trace.batch
        inputs = ", ".join(f"{name} {shape}" for name, shape in batch.inputs.items())
        yield Line(Text(visible(f"batch: {inputs} ({MADE_BY.get(batch.made_by, batch.made_by)})"), style="dim"))
        for note in batch.notes:
            yield Line(Text(visible(f"note: {note}"), style="dim"))
    for note in structure.notes:
        yield Line(Text(visible(f"note: {note}"), style="dim"))


def _gradient_lines(trace: Trace) -> Iterator[Line]:
    """The lines people grep for, each at the start of a line."""
    totals = gradient_totals(trace)
    good = totals.total and totals.with_grad == totals.total
    yield Line(Text(f"LoRA params with gradients: {totals.with_grad}/{totals.total}", style="green" if good else "bold red"))
    without = f"LoRA params without gradients: {totals.without_grad}/{totals.total}"
    yield Line(Text(without + missing_states(trace), style="" if good else "red"))
    yield Line(Text(f"Other trainable params with gradients: {totals.other_with_grad}/{totals.other}"))


def missing_states(trace: Trace) -> str:
    """Why they have none: ` (380 no gradient, 4 frozen)`; nothing where all have one."""
    words = {"none": "no gradient", "frozen": "frozen", "nonfinite": "NaN or infinite"}
    missing: list[GradientInfo] = [gradient for gradient in trace.gradients if gradient.layer is not None and not gradient.arrived]
    counts = {state: sum(gradient.state == state for gradient in missing) for state in words}
    counts["none"] -= (idle := idle_parameters(trace))
    said = [f"{count} {words[state]}" for state, count in counts.items() if count]
    said += [f"{idle} in layers that did not run"] if idle else []
    return f" ({', '.join(said)})" if said else ""
