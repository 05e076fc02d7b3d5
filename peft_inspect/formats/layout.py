"""Where a module sits: its tower, and its place in a stack of repeated blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from peft_inspect.formats.names import is_index
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
            if is_index(index):
                return Place(stack, int(index), inner)
    return None


def stacks_of(structure: Structure) -> tuple[str, ...]:
    """The paths of all stacks of repeated blocks, in order; without towers, every outermost list of two modules or more."""
    if structure.towers:
        return tuple(stack.path for tower in structure.towers for stack in tower.stacks)
    found: list[str] = []
    for module in structure.modules:
        parent, _, name = module.path.rpartition(".")
        if name == "1" and parent and f"{parent}.0" in structure.module and not any(parent.startswith(stack + ".") for stack in found):
            found.append(parent)
    return tuple(found)


def towers_of(structure: Structure) -> tuple[str, ...]:
    """The paths of all towers; where none are recorded, the parents of the stacks."""
    if structure.towers:
        return tuple(tower.path for tower in structure.towers)
    return tuple(dict.fromkeys(stack.rpartition(".")[0] for stack in stacks_of(structure)))


def layer_indices(paths: Iterable[str], structure: Structure) -> Iterator[int]:
    """The block index of each path that lies in a stack."""
    stacks = stacks_of(structure)
    for path in paths:
        if (place := place_of(path, stacks)) is not None:
            yield place.block
