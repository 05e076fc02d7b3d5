"""What became of an adapter in a merged checkpoint, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["merged", "not applied", "twice", "scaled", "other", "absent", "unjudged"]


@dataclass(frozen=True)
class MergedTensor:
    """One tensor that the adapter changes."""

    name: str  # of the model's parameter
    layer: str  # path of the adapter layer in the model that was inspected
    verdict: Verdict
    factor: float | None = None  # of the adapter's change, where the difference to the base is a multiple of it
    why: str = ""  # it could not be judged, or is not there


@dataclass(frozen=True)
class MergedWeights:
    """A merged checkpoint, held against its base with the adapter merged into it anew.

    `exact` is how many tensors are what PEFT's own merge gives, bit for bit; the others that are merged differ by roundings.
    """

    path: str
    base: str
    tensors: tuple[MergedTensor, ...]
    exact: int
