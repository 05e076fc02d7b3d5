"""Two hierarchies as one tree: what only one of them has, and what differs in what both have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from peft_inspect.formats.tree.differences import as_leaf, own_differences
from peft_inspect.formats.tree.nodes import Node, build, reshape, saved_copies
from peft_inspect.formats.wrappers import chains
from peft_inspect.records import Diagnosis, Structure

SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def compared(report: Diagnosis, other: Diagnosis) -> Node:
    """One tree of both; `change` of a node says what became of it in `other`.

    With different wrappers around them, the base models are compared.
    """
    ours, theirs = (chains(of.structure)[0] for of in (report, other))
    if str(ours) == str(theirs):
        roots = [build(of.structure) for of in (report, other)]
    else:
        roots = [_at(build(of.structure), chain.base.path) for of, chain in ((report, ours), (other, theirs))]
    merged = _merged(*roots)
    reshape(merged)
    return merged


def both(structure: Structure, other: Structure) -> Structure:
    """A structure in which the parameters of either are found; `structure` wins."""
    return replace(structure, parameters=structure.parameters + tuple(p for p in other.parameters if p.path not in structure.parameter))


def summary(root: Node, report: Diagnosis, other: Diagnosis, name: str = "") -> str:
    """Counts of what changed. `name`: what the person called `other`."""
    counts = Counter(node.change for node in root.walk() if node.change)
    said = ", ".join(f"{counts[change]} {change}" for change in SIGNS if counts[change])
    layers = f"adapter layers {_layers(report.structure)} → {_layers(other.structure)}"
    trainable = " → ".join(f"{sum(p.numel for p in of.structure.parameters if p.requires_grad):,}" for of in (report, other))
    codes = " → ".join(", ".join(sorted({finding.code for finding in of.findings})) or "none" for of in (report, other))
    return f"with {name or other.source}: {said or 'nothing changed'}; {layers}, trainable parameters {trainable}, findings {codes}"


def _layers(structure: Structure) -> int:
    return len(structure.adapter_layers)


def _at(root: Node, path: str) -> Node:
    return next(node for node in root.walk() if node.path == path)


def _merged(node: Node, other: Node) -> Node:
    said = tuple(own_differences(other, node))
    if bool(saved_copies(node)) != bool(saved_copies(other)):  # a wrapper beside what it wraps: nothing below is alike
        return replace(node, change="changed", said=", ".join(said))
    if not saved_copies(node):
        node, other = as_leaf(node), as_leaf(other)
    children = list(_children(node, other))
    return replace(node, children=children, change="changed" if said else "", said=", ".join(said))


def _children(node: Node, other: Node) -> Iterator[Node]:
    others = {child.name: child for child in other.children}
    for child in node.children:
        match = others.pop(child.name, None)
        yield replace(child, change="removed") if match is None else _merged(child, match)
    for child in other.children:
        if child.name in others:
            yield replace(child, change="added")
