"""What the page shows, as plain values. Short keys, because there may be fifty thousand modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from peft_inspect.environment import environment
from peft_inspect.formats.answer import answer
from peft_inspect.formats.coverage import covered
from peft_inspect.formats.findings import verdict
from peft_inspect.formats.gradient_map import GradientMap, MapRow, gradient_map
from peft_inspect.formats.heatmap import Sign
from peft_inspect.formats.layout import towers_of
from peft_inspect.formats.memory import memory_line
from peft_inspect.formats.names import fold_with_first
from peft_inspect.formats.targets import shown_targets, target_rows
from peft_inspect.formats.text import MADE_BY, WEIGHTS
from peft_inspect.formats.totals import gradient_totals, parameter_totals
from peft_inspect.formats.tree.columns import cells_of
from peft_inspect.formats.tree.diff import SIGNS
from peft_inspect.formats.tree.drawing import ModelTree
from peft_inspect.formats.tree.labels import layer_words, shape_of, short_dtype, shown_type, variants, weight_of
from peft_inspect.formats.tree.nodes import Node
from peft_inspect.formats.tree.runs import Run, runs, said_differences
from peft_inspect.formats.view import View
from peft_inspect.formats.wrappers import chains, same_object
from peft_inspect.records import AdapterLayerInfo, Diagnosis, Finding, Structure, Trace


def payload(report: Diagnosis, view: View) -> dict[str, Any]:
    """The data of the page, with the modules that `view` asks for."""
    structure, trace = report.structure, report.trace
    view = replace(view, columns=tuple(column for column in view.columns if column != "adapters"))  # the labels say them
    tree = ModelTree(report, view)
    totals, said = parameter_totals(structure), answer(report)
    return {
        "source": report.source,
        "chains": [str(chain) for chain in chains(structure)],
        "parameters": [totals.total, totals.trainable, totals.adapter],
        "weights": WEIGHTS[structure.weights],
        "mode": structure.mode,
        "memory": memory_line(structure) if structure.adapter_layers else "",
        "environment": environment(),
        "notes": [
            *structure.notes,
            *(f"{short} and {live} are one object" for short, live in same_object(structure) if view.verbosity > 0),
        ],
        "gradients": None if trace is None else _gradients(trace),
        "map": None if trace is None else _map(gradient_map(trace)),
        "findings": [_finding(finding) for finding in report.findings],
        "outcomes": [[outcome.code, outcome.rule, outcome.status, outcome.why] for outcome in report.outcomes],
        "pages": {outcome.code: outcome.help for outcome in report.outcomes if outcome.status == "found"},
        "steps": report.steps,
        "answer": [said.plain, str(said.style)],
        "targets": [
            {
                "adapter": adapter.name,
                "type": adapter.type,
                "rows": [row for target in shown_targets(adapter) for row in target_rows(target, structure)],
            }
            for adapter in structure.adapters
        ],
        "coverage": _coverage(structure),
        "compared": tree.summary,
        "columns": view.columns,
        "tree": _Tree(tree).whole(),
    }


def _coverage(structure: Structure) -> dict[str, Any] | None:
    """The rows of each place: cells, part of all parameters, part of them that is adapted."""
    found = covered(structure)
    if found is None:
        return None
    places = [[place, [[row.cells, round(row.part, 5), round(row.adapted, 5)] for row in rows]] for place, rows in found.places]
    return {"said": found.said, "heads": found.heads, "places": places}


def _gradients(trace: Trace) -> dict[str, Any]:
    totals = gradient_totals(trace)
    return {
        "with": totals.with_grad,
        "total": totals.total,
        "other": [totals.other_with_grad, totals.other],
        "batch": ", ".join(f"{name} {shape}" for name, shape in trace.batch.inputs.items()),
        "made_by": MADE_BY.get(trace.batch.made_by, trace.batch.made_by),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    source = finding.source
    return {
        "code": finding.code,
        "rule": finding.rule,
        "severity": finding.severity.value,
        "message": finding.message,
        "places": fold_with_first(finding.modules),
        "count": len(finding.modules),
        "at": f"{source} in {source.function}" if source else "",
        "line": source.code if source else "",
        "fix": finding.fix,
        "verified": verdict(finding),
        "helped": finding.fix_verified,
        "step": finding.tried_in,
    }


def _map(found: GradientMap) -> dict[str, Any]:
    stacks: dict[str, list[MapRow]] = {}
    for row in found.rows:
        stacks.setdefault(row.stack, []).append(row)
    return {
        "norms": found.norms,
        "words": {**Sign.words, "ok": "gradient"},
        "signs": Sign.unicode,
        "stacks": [{"name": name, "rows": [_map_row(row, found) for row in rows]} for name, rows in stacks.items()],
    }


def _map_row(row: MapRow, found: GradientMap) -> dict[str, Any]:
    """Each cell: block, state, norm, place on the scale, parameters with a gradient, parameters, first path."""
    cells = [
        [
            block,
            cell.state,
            cell.norm,
            round(found.level(cell.norm), 3) if cell.norm is not None else None,
            cell.arrived,
            cell.total,
            cell.layers[0],
        ]
        for block, cell in row.cells.items()
    ]
    return {"label": row.label, "adapter": row.adapter, "cells": cells}


class _Tree:
    """The modules as nested objects; a run of equal blocks is a group that holds its blocks."""

    def __init__(self, tree: ModelTree) -> None:
        self.root, self.structure, self.view = tree.shown, tree.structure, tree.view
        self.towers = frozenset(towers_of(self.structure))
        self.columns = tuple(column for column in self.view.columns if column != "params")

    def whole(self) -> dict[str, Any] | None:
        """All modules that are shown."""
        return None if self.root is None else self.node(self.root)

    def node(self, node: Node) -> dict[str, Any]:
        """One module: n name, t class, p parameters, r trainable, and what else applies."""
        shown: dict[str, Any] = {
            "n": node.name,
            "t": shown_type(node),
            "p": node.total,
            "r": node.trainable,
        }
        extra = {
            "s": shape_of(weight_of(node, self.structure)) if node.layers or not node.children else "",
            "a": [self._adapter(layer) for layer in node.layers],
            "f": [[code, severity.value] for code, severity in node.flags],
            "w": 1 if node.path in self.towers else 0,
            "e": list(node.ties),
            "o": node.alias_of,
            "v": self._cells(Run((node,))),
            "c": SIGNS.get(node.change),
            "x": node.said and f"now {node.said}",
            "k": list(self._children(node)),
        }
        return {**shown, **{key: value for key, value in extra.items() if value}}

    def _children(self, node: Node) -> Iterator[Mapping[str, Any]]:
        for run in runs(node.children):
            if len(run.nodes) == 1 and run.like is None:
                yield self.node(run.first)
            else:
                yield self._group(run)

    def _group(self, run: Run) -> Mapping[str, Any]:
        said = "" if run.like is None else f"unlike {run.like.short_label()}: {'; '.join(said_differences(run.first, run.like.first))}"
        group = {
            "g": len(run.nodes),
            "n": run.label(),
            "t": run.first.module.type,
            "p": sum(node.total for node in run.nodes),
            "r": sum(node.trainable for node in run.nodes),
            "v": self._cells(run),
            "k": [self.node(node) for node in run.nodes],
        }
        extra = {"c": SIGNS.get(run.first.change), "d": said}
        return {**group, **{key: value for key, value in extra.items() if value}}

    def _cells(self, run: Run) -> list[str]:
        return [cell for column in self.columns for cell in cells_of(column, run, self.structure, self.view)]

    def _adapter(self, layer: AdapterLayerInfo) -> list[Any]:
        """Whether it trains, and its label."""
        words = [*layer_words(layer, self.structure), *variants(layer)]
        trains = self.structure.trainable(layer) and layer.active and layer.enabled and not layer.merged
        rank = [f"r={layer.r}"] if layer.r is not None else []
        alpha = [f"α={layer.lora_alpha:g}"] if layer.lora_alpha is not None else []
        named = [layer.parameter_name] if layer.parameter_name else []
        tuner = [layer.tuner] if layer.tuner != "LORA" else []
        return [int(trains), " ".join([layer.adapter, *named, *tuner, *rank, *alpha, short_dtype(layer.dtype), *words])]
