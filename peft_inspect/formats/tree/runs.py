"""Folding: the children of a list of modules in groups of equal ones, and what sets each group apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peft_inspect.formats.names import brief_ranges, fold, is_index, ranges
from peft_inspect.formats.tree.differences import differences
from peft_inspect.formats.tree.nodes import Node

FEW = 2  # ranges of indices that a group is called by where it is only referred to


@dataclass(frozen=True)
class Run:
    """Children that differ in nothing but their index; adjacent or not. A single child is a run of one."""

    nodes: tuple[Node, ...]
    like: Run | None = None  # the group it is compared with, the first of its list that has the same class

    @property
    def first(self) -> Node:
        """The one that stands for all."""
        return self.nodes[0]

    def label(self, dash: str = "–") -> str:
        """`0–4,6–10`, or the name of a single child."""
        return ranges((int(node.name) for node in self.nodes), dash) if is_index(self.first.name) else self.first.name

    @property
    def shown_label(self) -> str:
        """The label as a row of the tree begins with it: of very many ranges the first and the last."""
        return brief_ranges(int(node.name) for node in self.nodes) if is_index(self.first.name) else self.first.name

    def short_label(self) -> str:
        """The label, with the first of its ranges alone where they are many: what comes later refers to it."""
        spans = self.label().split(",") if is_index(self.first.name) else [self.first.name]
        return ",".join(spans) if len(spans) <= FEW else f"{spans[0]},…"


def runs(children: Sequence[Node]) -> Iterator[Run]:
    """The children in order, equal ones among those with an index in one run."""
    alike: dict[int, list[Node]] = {}
    for child in children:
        if is_index(child.name):
            alike.setdefault(child.shape, []).append(child)
    first_of: dict[tuple[str, bool], Run] = {}
    done: set[int] = set()
    for child in children:
        if not is_index(child.name):
            yield Run((child,))
        elif child.shape not in done:
            done.add(child.shape)
            kind = child.module.type, child.change in ("added", "removed")  # what only one model has is not compared
            like = first_of.get(kind) if child.children and not child.layers else None
            run = Run(tuple(alike[child.shape]), like)
            first_of.setdefault(kind, run)
            yield run


def said_differences(node: Node, other: Node) -> list[str]:
    """What differs in `node` as compared with `other`, as phrases: `self_attn.{q_proj,v_proj}: r 16 instead of 8`."""
    by_place: dict[str, list[str]] = {}
    for place, phrase in differences(node, other):
        by_place.setdefault(place, []).append(phrase)
    alike: dict[tuple[str, ...], list[str]] = {}
    for place, phrases in by_place.items():
        alike.setdefault(tuple(phrases), []).append(place)
    said = []
    for alike_phrases, places in alike.items():
        phrase = ", ".join(alike_phrases)
        said += [phrase] if "" in places else []
        said += [f"{place}: {phrase}" for place in fold(filter(None, places))]
    return said
