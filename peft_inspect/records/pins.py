"""What a project holds a target to: numbers in its configuration, and the lock file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from peft_inspect.records.structure import Structure
from peft_inspect.records.trace import Trace

Locked = Mapping[str, Any]  # one target as a lock file holds it: class, base class, parameters, adapter → lines


@dataclass(frozen=True)
class Expectations:
    """What a project pins of a target. None: not pinned."""

    adapter_layers: int | None = None
    trainable_parameters: tuple[int, int] | None = None  # at least, at most
    gradients: Literal["all"] | None = None  # "all": every adapter parameter gets one


@dataclass(frozen=True)
class Lock:
    """What a lock file says of a target."""

    target: str
    then: Locked | None  # None: it does not name this target
    versions: Mapping[str, str]  # of Python and the libraries, when the file was written


@dataclass(frozen=True)
class Pins:
    """All that a target is held to. None: nothing of the kind."""

    expect: Expectations | None = None
    lock: Lock | None = None


@dataclass(frozen=True)
class Pinned:
    """What a target is held to, and what it is."""

    pins: Pins
    structure: Structure
    trace: Trace | None  # None: nothing was run
    now: Locked  # as a lock would hold it
    versions: Mapping[str, str]
