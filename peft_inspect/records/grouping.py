"""Evidence put together that belongs together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from peft_inspect.records.basics import Source
from peft_inspect.records.structure import AdapterLayerInfo


class Placed(Protocol):
    """Evidence with a line of code."""

    @property
    def source(self) -> Source | None:
        """The line; None where there is none."""


P = TypeVar("P", bound=Placed)


def by_place(evidence: Iterable[P]) -> tuple[tuple[Source | None, tuple[P, ...]], ...]:
    """Evidence grouped by the function its line is in: one fault is one place. The line is the first of each group."""
    groups: dict[tuple[str, str] | None, list[P]] = {}
    for piece in evidence:
        groups.setdefault((piece.source.file, piece.source.function) if piece.source else None, []).append(piece)
    return tuple(
        (min((piece.source for piece in group if piece.source), key=lambda source: source.line, default=None), tuple(group))
        for group in groups.values()
    )


def runs_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The runs of consecutive numbers, each as its first and last, in order."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def modules_of(layers: Iterable[AdapterLayerInfo]) -> tuple[str, ...]:
    """The distinct paths of adapter layers, in order."""
    return tuple(dict.fromkeys(layer.path for layer in layers))
