"""From the tree of modules to the rows that are drawn: what is folded, what is left out, what is said about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from peft_inspect.formats.layout import towers_of
from peft_inspect.formats.names import visible
from peft_inspect.formats.numbers import count
from peft_inspect.formats.screen import seven_bit
from peft_inspect.formats.tree.columns import cells_of
from peft_inspect.formats.tree.diff import SIGNS
from peft_inspect.formats.tree.labels import (
    Part,
    adapter_parts,
    beside_columns,
    flag_parts,
    place,
    saved_parts,
    shape_of,
    shown_type,
    weight_of,
)
from peft_inspect.formats.tree.nodes import Node, saved_copies
from peft_inspect.formats.tree.runs import Run, runs, said_differences
from peft_inspect.formats.view import Column, View
from peft_inspect.formats.wrappers import WRAPPERS
from peft_inspect.records import Structure

CHANGE_STYLES = {"added": "green", "removed": "red", "changed": "yellow"}
SAID = 3  # differences that a block's line spells out; --expand shows the rest


@dataclass(frozen=True)
class Row:
    """One line: the guides of the tree, the label, and the cells of the columns. A remark is prose and has none."""

    guide: str
    label: tuple[Part, ...]
    cells: Mapping[Column, tuple[str, ...]] = field(default_factory=dict)
    remark: bool = False

    def in_seven_bits(self) -> Row:
        """The same for a screen that has no other characters."""
        label = tuple(replace(part, text=seven_bit(part.text)) for part in self.label)
        return replace(self, label=label, cells={column: tuple(map(seven_bit, cells)) for column, cells in self.cells.items()})


def rows(root: Node, structure: Structure, view: View, *, narrow: bool = False) -> Iterator[Row]:
    """All rows of the tree."""
    painter = _Painter(structure, view, narrow)
    yield painter.row("", Run((root,)), "", None, closed=view.depth == 0)
    if view.depth != 0:
        yield from painter.below(root, "", 1)


class _Painter:
    """Walks the tree with what is asked for in mind."""

    def __init__(self, structure: Structure, view: View, narrow: bool) -> None:
        self.structure = structure
        self.view = view
        self.towers = frozenset(towers_of(structure))
        self.reads = {read.layer: read.source for read in structure.weight_reads}
        self.tee, self.end, self.bar, self.gap = ("├ ", "└ ", "│ ", "  ") if narrow else ("├─ ", "└─ ", "│  ", "   ")

    def below(self, node: Node, guide: str, level: int, like: Node | None = None) -> Iterator[Row]:
        """The rows under a node. `like`: the block that it is compared with; what is equal there is not said again."""
        entries = list(self._entries(node, like))
        same = [entry for entry in entries if _same(entry.run, entry.like)]
        entries = [entry for entry in entries if entry not in same]
        for at, (label, run, beside) in enumerate(entries):
            last = at == len(entries) - 1 and not same
            yield self.row(guide + (self.end if last else self.tee), run, label, node, closed=self._closed(run.first, level))
            yield from self._inside(run, guide + (self.gap if last else self.bar), level, _counterpart(run.first, beside))
        if same:
            names = ", ".join(entry.label for entry in same)
            yield Row(guide + self.end, (Part(f"{names}: as above", "dim"),), remark=True)

    def _inside(self, run: Run, guide: str, level: int, like: Node | None) -> Iterator[Row]:
        if run.like is not None:
            like = run.like.first
            yield Row(guide, (Part(self._said(run), "yellow"),), remark=True)
        if self._closed(run.first, level):
            return
        alike = like is not None and like.module.type == run.first.module.type and not self.view.expand
        yield from self.below(run.first, guide, level + 1, like if alike else None)

    def _entries(self, node: Node, like: Node | None) -> Iterator[_Entry]:
        """Children as runs; a list of blocks gives its blocks, under its own name."""
        for run in self._runs(node):
            child = run.first
            if child.module.type == "ModuleList" and child.children and not (child.parameters or child.layers or child.flags):
                beside = _counterpart(child, like)
                yield from (_Entry(self._label(f"{self._label('', run)}.", inner), inner, beside) for inner in self._runs(child))
            else:
                yield _Entry(self._label("", run), run, like)

    def _runs(self, node: Node) -> Iterator[Run]:
        return (Run((child,)) for child in node.children) if self.view.expand else runs(node.children)

    def _closed(self, node: Node, level: int) -> bool:
        """Whether what is inside stays hidden: beyond the depth asked for, or the inside of an adapter layer."""
        if node.alias_of is not None or (self.view.depth is not None and level >= self.view.depth):
            return True
        return bool(node.layers or saved_copies(node)) and not self.view.expand

    def _label(self, prefix: str, run: Run) -> str:
        times = f" ×{len(run.nodes)}" if len(run.nodes) > 1 else ""
        return f"{prefix}{run.shown_label}{times}"

    def _said(self, run: Run) -> str:
        """How a block differs from the others of its list."""
        assert run.like is not None
        found = said_differences(run.first, run.like.first)
        more = f"; and {len(found) - SAID} more (--expand)" if len(found) > SAID else ""
        return visible(f"unlike {run.like.short_label()}: {'; '.join(found[:SAID])}{more}")

    def row(self, guide: str, run: Run, label: str, parent: Node | None, *, closed: bool) -> Row:
        """The row of a module, or of several equal ones. `closed`: what is inside is not shown, so its row speaks for it."""
        node = run.first
        parts = [*self._names(run, label)]
        if node.alias_of is None:
            if self.structure.mode == "mixed" and (parent is None or parent.module.training is not node.module.training):
                parts.append(Part("in train mode" if node.module.training else "in eval mode", "yellow"))
            parts += self._states(node, closed=closed)
        cells = {column: tuple(cells_of(column, run, self.structure, self.view)) for column in self.view.columns}
        return Row(guide, tuple(parts), cells)

    def _names(self, run: Run, label: str) -> Iterator[Part]:
        node = run.first
        if node.change:
            yield Part(SIGNS[node.change], CHANGE_STYLES[node.change])
        if label:
            yield Part(label, "bold")
        yield Part(shown_type(node), "magenta" if node.module.kind in WRAPPERS else "")
        if node.alias_of is not None:
            yield Part(f"= {node.alias_of}, the same object", "cyan")
            return
        leaf = not node.children or node.layers or saved_copies(node)
        if "shape" not in self.view.columns and leaf and (shape := shape_of(weight_of(node, self.structure))):
            yield Part(shape, "dim", drop=4)
        if node.path in self.towers:
            yield Part("(tower)", "cyan")
        if len(run.nodes) > 1 and run.nodes[0].total:
            yield Part(f"each {count(node.total, exact=self.view.exact)}", "dim", drop=5)

    def _states(self, node: Node, *, closed: bool) -> Iterator[Part]:
        inside = node.all_layers() if closed else []
        if node.layers:
            said = beside_columns if "adapters" in self.view.columns else adapter_parts
            yield from said(node.all_layers(), node.path, self.structure)
        elif saved_copies(node):
            yield from saved_parts(node)
        elif inside and node.children:
            yield Part(f"{len(inside)} adapter layers inside", "green")
        yield from (Part(f"tied to {_short(tie)}", "cyan") for tie in node.ties)
        if node.said:
            yield Part(f"now {node.said}", CHANGE_STYLES["changed"])
        for path in dict.fromkeys(layer.path for layer in inside):
            if path in self.reads:
                yield Part(f"! skipped where .weight is read: {place(self.reads[path])}", "yellow")
        yield from flag_parts(node.all_flags() if closed else node.flags)


def _short(path: str) -> str:
    """The module and the parameter; the columns give the whole path."""
    return ".".join(path.split(".")[-2:])


class _Entry(NamedTuple):
    """What one row is about, and the module whose children it is compared with."""

    label: str
    run: Run
    like: Node | None


def _same(run: Run, like: Node | None) -> bool:
    """Whether every module of the run equals that of the same name in the block it is compared with."""
    others = [_counterpart(node, like) for node in run.nodes]
    return all(other is not None and other.shape == node.shape for node, other in zip(run.nodes, others, strict=True))


def _counterpart(node: Node, like: Node | None) -> Node | None:
    """The child of `like` that has the same name."""
    return None if like is None else next((child for child in like.children if child.name == node.name), None)
