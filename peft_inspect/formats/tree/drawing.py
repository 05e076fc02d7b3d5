"""The wrapper hierarchy as a tree: repeated blocks folded, adapter layers marked, faults flagged where they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from io import StringIO
from typing import TYPE_CHECKING, TextIO

from rich.text import Text

from peft_inspect.formats.answer import answer
from peft_inspect.formats.coverage import coverage_lines
from peft_inspect.formats.findings import STYLES, headline, verdict
from peft_inspect.formats.memory import memory_line
from peft_inspect.formats.names import visible
from peft_inspect.formats.notebook import shown
from peft_inspect.formats.screen import Line, Screen
from peft_inspect.formats.targets import target_lines
from peft_inspect.formats.text import heading
from peft_inspect.formats.tree.branches import Row, rows
from peft_inspect.formats.tree.columns import adapter_names
from peft_inspect.formats.tree.diff import both, compared, summary
from peft_inspect.formats.tree.labels import DIFF_LEGEND, LEGEND, adapters_said
from peft_inspect.formats.tree.nodes import Node, build, matched
from peft_inspect.formats.tree.rowfit import NARROW, Fit
from peft_inspect.formats.view import View
from peft_inspect.formats.wrappers import same_object
from peft_inspect.records import Diagnosis, Finding, Structure

SIDE_BY_SIDE = 4  # adapters at most that have a column each

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions


def write(report: Diagnosis, out: TextIO, view: View | None = None) -> None:
    """Write the tree for a person to read."""
    screen = Screen(out, view or View(command="tree"))
    tree = ModelTree(report, replace(screen.view, ascii=screen.ascii))
    screen.show(tree.lines(screen.width))


class ModelTree:
    """A rich renderable; `str()` gives plain text of unlimited width.

    Args:
        report: an inspection of any depth.
        view: what to show; default: everything folded, parameter counts.
    """

    def __init__(self, report: Diagnosis, view: View | None = None) -> None:
        self.report = report
        self.view = view or View(command="tree")

    @cached_property
    def root(self) -> Node:
        """The modules as a tree, with sums."""
        if self.view.other is not None:
            return compared(self.report, self.view.other)
        return build(self.report.structure, self.report.findings)

    @cached_property
    def shown(self) -> Node | None:
        """What of it was asked for; None when nothing matches."""
        return self.root if self.view.match is None else matched(self.root, self.view.match)

    @cached_property
    def structure(self) -> Structure:
        """Where the parameters of all shown modules are found."""
        structure = self.report.structure
        return structure if self.view.other is None else both(structure, self.view.other.structure)

    @property
    def summary(self) -> str:
        """What changes with the other model; nothing without one."""
        other = self.view.other
        return "" if other is None else summary(self.root, self.report, other, self.view.other_name)

    @property
    def legend(self) -> tuple[str, ...]:
        """What the signs mean, where there are any."""
        compared = (DIFF_LEGEND,) if self.view.other is not None else ()
        if not self.report.structure.adapter_layers:
            return compared
        several = len(adapter_names(self.report.structure)) > 1
        return (*(adapters_said(self.report.structure) if several else ()), *compared, LEGEND)

    def lines(self, width: int) -> Iterator[Line]:
        """Heading, tree, and what needs saying about it, for a screen of `width` columns."""
        if self.view.verbosity < 0:
            yield from self._at_a_glance(width)
            return
        yield from heading(self.report, paths=True)
        yield Line(Text())
        yield from (Line(text, cut=True) for text in self.branches(width))
        if self.view.other is not None:
            yield Line(Text(visible(self.summary), style="bold"))
        yield from self._notes()
        if self.view.targets:
            yield from target_lines(self.report.structure)
            yield from coverage_lines(self.report.structure, width)
        for finding in self.report.findings:
            yield from _brief(finding)
        yield from _judged(self.report)
        yield Line(answer(self.report))

    def _at_a_glance(self, width: int) -> Iterator[Line]:
        """What is adapted, in a screenful however many layers there are."""
        yield from heading(self.report)
        yield from target_lines(self.report.structure)
        yield from coverage_lines(self.report.structure, width)
        yield from map(headline, self.report.findings)
        yield Line(answer(self.report))

    def branches(self, width: int) -> Iterator[Text]:
        """The tree alone."""
        if self.shown is None:
            yield Text(f"no module path matches {visible(self.view.match or '')}")
            return
        side_by_side = replace(self.view, columns=("adapters", *(column for column in self.view.columns if column != "adapters")))
        several = self.view.other is None and 1 < len(adapter_names(self.structure)) <= SIDE_BY_SIDE
        fits = [self._fit(side_by_side, width)] if several else []
        if not fits or fits[0].beside != side_by_side.columns:
            fits = [self._fit(self.view, width)]
        yield from fits[0].lines()

    def _fit(self, view: View, width: int) -> Fit:
        assert self.shown is not None
        drawn: list[Row] = list(rows(self.shown, self.structure, view, narrow=width < NARROW))
        if view.ascii:  # before the columns are laid out: a name that is spelled out takes more room
            drawn = [row.in_seven_bits() for row in drawn]
        return Fit(drawn, view, width, self.structure)

    def _notes(self) -> Iterator[Line]:
        """Legend, memory of the adapter, and paths that lead to one object."""
        structure = self.report.structure
        yield from (Line(Text(line, style="dim")) for line in self.legend)
        if structure.adapter_layers:
            yield Line(Text(memory_line(structure, exact=self.view.exact), style="dim"))
        for short, live in same_object(structure) if self.view.verbosity > 0 else ():
            yield Line(Text(visible(f"one object: {short} is {live}"), style="dim"))

    def __str__(self) -> str:
        out = StringIO()
        screen = Screen(out, replace(self.view, width=None, color=False))
        return "\n".join(line.plain for line in self.lines(screen.width))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return shown(str(self))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Text]:
        screen = Screen(StringIO(), replace(self.view, width=options.max_width, ascii=self.view.ascii or options.ascii_only))
        for line in self.lines(options.max_width):
            yield from screen.fitted(line)


def _brief(finding: Finding) -> Iterator[Line]:
    """A finding in two lines: gradcheck and check print the whole of it."""
    yield Line(
        Text.assemble(
            (f"{finding.severity.value} {finding.code}", STYLES[finding.severity]), f" {visible(finding.rule)}: {visible(finding.message)}"
        )
    )
    if finding.source is not None:
        yield Line(Text(visible(f"{finding.source}: {finding.source.code.strip()}")), 2)
    if finding.fix:
        tried = verdict(finding)
        yield Line(Text(visible(f"fix: {finding.fix}", keep="\n") + (f" (verified: {tried})" if tried else "")), 2)


def _judged(report: Diagnosis) -> Iterator[Line]:
    judged = sum(outcome.status in ("clean", "found") for outcome in report.outcomes)
    crashed = [outcome for outcome in report.outcomes if outcome.status == "crashed"]
    if crashed:
        yield Line(Text(visible(f"crashed: {', '.join(f'{outcome.code} ({outcome.why})' for outcome in crashed)}"), style="bold red"))
        return
    count = len(report.findings)
    found = f"{count} finding{'' if count == 1 else 's'}" if count else "no findings"
    yield Line(Text(f"{found} from {judged} rules", style="dim"))
