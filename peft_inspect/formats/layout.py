"""Where a module sits: its tower, and its place in a stack of repeated blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from peft_inspect.records import Structure


class Place(NamedTuple):
    """The stack that holds a module, the index of its block there, and its path within the block."""

    stack: str
    block: int
    inner: str


def place_of(path: str, stacks: Iterable[str]) -> Place | None:
    """The outermost of `stacks` that holds `path`; None for a module outside every stack."""
    for stack in sorted(stacks, key=len):
        if path.startswith(stack + "."):
            index, _, inner = path[len(stack) + 1 :].partition(".")
            if index.isdecimal():
                return Place(stack, int(index), inner)
    return None


def stacks_of(structure: Structure) -> tuple[str, ...]:
    """The paths of all stacks of repeated blocks, in order."""
    return tuple(stack.path for tower in structure.towers for stack in tower.stacks)


def layer_indices(paths: Iterable[str], structure: Structure) -> Iterator[int]:
    """The block index of each path that lies in a stack."""
    stacks = stacks_of(structure)
    for path in paths:
        if (place := place_of(path, stacks)) is not None:
            yield place.block
