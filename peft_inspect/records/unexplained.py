"""What is left of a trace to explain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from peft_inspect.records.structure import AdapterLayerInfo
from peft_inspect.records.trace import Trace


@dataclass(frozen=True)
class Unexplained:
    """A trace, and what is left of it to explain once more specific rules have spoken."""

    trace: Trace
    explained: frozenset[str]  # paths of adapter layers and modules

    @cached_property
    def dead(self) -> tuple[AdapterLayerInfo, ...]:
        """Of `Trace.dead`, the layers that no rule has explained."""
        return tuple(layer for layer in self.trace.dead if layer.path not in self.explained)

    def of(self, paths: Iterable[str]) -> list[str]:
        """Of `paths`, those that no rule has explained."""
        return [path for path in paths if path not in self.explained]
