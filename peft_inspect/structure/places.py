"""Where a module stands: its tower, its stack of blocks, and its place in the block."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from peft_inspect.records import Tower
    from peft_inspect.structure.bare import BareModel

_FIRST_INDEX = re.compile(r".*?\.[^.]*\.(?P<index>\d+)\.")  # as PEFT finds it for layers_to_transform


class Place(NamedTuple):
    """A stack by its name, the index of a block in it, and a path within that block."""

    stack: str
    block: int
    inner: str


class Places:
    """Answers for one base model. Names are those before wrapping, see `bare`."""

    def __init__(self, bare: BareModel, towers: Iterable[Tower]) -> None:
        self.bare = bare
        self._towers = sorted((tower.path for tower in towers), key=len, reverse=True)
        below = f"{bare.path}." if bare.path else ""
        self._stacks = {
            stack.path.removeprefix(below): stack.indices for tower in towers for stack in tower.stacks if stack.path.startswith(below)
        }

    def tower(self, path: str) -> str:
        """The innermost tower that holds a live path; "" for none."""
        return next((tower for tower in self._towers if path == tower or path.startswith(tower + ".")), "")

    def of(self, name: str) -> Place | None:
        """The place of a name; None outside every stack."""
        for stack in self._stacks:
            if name.startswith(stack + "."):
                block, _, inner = name[len(stack) + 1 :].partition(".")
                if block.isdecimal():
                    return Place(stack, int(block), inner)
        return None

    def index(self, name: str, pattern: str | tuple[str, ...]) -> int | None:
        """The layer index that PEFT reads from a name, for `layers_to_transform` and `layers_pattern`."""
        patterns = (pattern,) if isinstance(pattern, str) else pattern
        if not patterns or patterns == ("",):
            found = _FIRST_INDEX.match(name)
        else:
            tries = (re.match(rf"(?:^|.*?\.){each}\.(?P<index>\d+)\.", name) for each in patterns)
            found = next((hit for hit in tries if hit), None)
        return int(found["index"]) if found else None

    def blocks(self, pattern: str | tuple[str, ...]) -> dict[int, tuple[str, ...]]:
        """Live paths of the blocks of all stacks, by the layer index that PEFT reads from them."""
        found: dict[int, list[str]] = {}
        for stack, indices in self._stacks.items():
            for block in indices:
                index = self.index(f"{stack}.{block}.", pattern)
                if index is not None:
                    found.setdefault(index, []).append(self.bare.live.get(f"{stack}.{block}", f"{stack}.{block}"))
        return {index: tuple(paths) for index, paths in found.items()}

    def missed(self, matched: Collection[str], skipped: Collection[str]) -> tuple[str, ...]:
        """Live paths, in the stacks that hold `matched`, of what was missed at the same place in other blocks.

        That is the layer itself, or the module that would hold it, where that module is of the same class as the one
        that does. A block that is built differently there has missed nothing. `skipped` was left out on purpose.
        """
        hit: dict[tuple[str, str], list[int]] = {}
        for name in matched:
            if (place := self.of(name)) is not None:
                hit.setdefault((place.stack, place.inner), []).append(place.block)
        found = (path for (stack, inner), blocks in hit.items() for path in self._missed_at(stack, inner, blocks))
        left_out = {self.bare.live[name] for name in skipped}
        return tuple(dict.fromkeys(path for path in found if path not in left_out))

    def _missed_at(self, stack: str, inner: str, blocks: list[int]) -> Iterator[str]:
        modules = self.bare.modules
        parent = inner.rpartition(".")[0]
        layer, holder = (type(modules[_join(stack, blocks[0], path)]) for path in (inner, parent))
        for block in sorted(set(self._stacks[stack]) - set(blocks)):
            here, around = _join(stack, block, inner), _join(stack, block, parent)
            if here in modules:
                if type(modules[here]) is layer:
                    yield self.bare.live[here]
            elif around in modules and type(modules[around]) is holder:
                yield self.bare.live[around]


def _join(stack: str, block: int, inner: str) -> str:
    return f"{stack}.{block}.{inner}" if inner else f"{stack}.{block}"
