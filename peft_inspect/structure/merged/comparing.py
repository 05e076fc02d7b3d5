"""What a tensor of a merged checkpoint is, told from its base and from the merge made anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from peft_inspect.records import Verdict
from peft_inspect.structure.merged.replay import Precision

_ROUNDINGS = 2.0  # units in the last place by which two merges of the same values may differ
_NOISE = 3.0  # how much more than the rounding of one addition may be left beside a multiple of the change
_LEFT = 0.02  # likewise, as a share of the whole difference
_AT_ONCE = 1 << 21  # elements that are measured at a time
_FEW = 0.05  # how far a factor may be from a whole one


@dataclass
class Comparison:
    """One tensor, piece by piece: `chosen` is the precision that has given the same bits from the first piece on.

    Where none does, the first such piece says by how much: a piece has more elements than any statistics need.
    """

    candidates: tuple[Precision, ...]
    chosen: Precision | None = None
    exact: bool = True
    unchanged: bool = True  # so far it is the base
    rounded: bool = True  # what was measured is within the last places of the usual merge
    partly: bool = False  # some pieces are merged and others are not
    pieces: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("change", "both", "found", "noise"), 0.0))

    @property
    def decided(self) -> bool:
        """Whether no further piece can change the verdict."""
        return self.partly or not (self.exact or self.unchanged or self.rounded)

    def add(self, base: Tensor, found: Tensor, merged: Callable[[Precision], Tensor]) -> None:
        """Another piece: of the base as stored, of the merged checkpoint, and of the merge in some precision."""
        first, was_exact = self.pieces == 0, self.exact
        self.pieces += 1
        if was_exact:
            tried = self.candidates if first else (self.chosen,)
            self.chosen = next((each for each in tried if each and torch.equal(merged(each).to(found.dtype), found)), None)
            self.exact = self.chosen is not None
        same = torch.equal(base.to(found.dtype), found) if first or self.unchanged else False
        if self.exact:
            self.unchanged = self.unchanged and same
            return
        if was_exact or not self.unchanged or not same:
            self._measured(base, found, merged(self.candidates[0]))
        self.partly = not first and not self.rounded and (was_exact or (self.unchanged and not same))
        self.unchanged = self.unchanged and same

    def _measured(self, base: Tensor, found: Tensor, merged: Tensor) -> None:
        for start in range(0, found.numel(), _AT_ONCE):
            piece = slice(start, start + _AT_ONCE)
            self._measure(base.flatten()[piece], found.flatten()[piece], merged.flatten()[piece])

    def _measure(self, base: Tensor, found: Tensor, merged: Tensor) -> None:
        """Sums of squares over the piece: the adapter's change, the difference that is there, and the rounding of its dtype."""
        wide, target = base.to(torch.float32), found.to(torch.float32)
        change, difference = merged.to(torch.float32) - wide, target - wide
        unit = _unit(torch.maximum(target.abs(), wide.abs()), found.dtype)
        off = (target - merged.to(found.dtype).to(torch.float32)).abs()
        self.rounded = self.rounded and bool((off <= _ROUNDINGS * unit).all())
        self.sums["change"] += _dot(change, change)
        self.sums["both"] += _dot(change, difference)
        self.sums["found"] += _dot(difference, difference)
        self.sums["noise"] += _dot(unit, unit) / 12

    def verdict(self) -> tuple[Verdict, float | None, str]:
        """What happened to the tensor, the factor of the change, and why it cannot be judged."""
        change, both, found, noise = (self.sums[name] for name in ("change", "both", "found", "noise"))
        if self.exact:
            return "merged", 1.0, ""
        if self.partly:
            return "other", None, ""
        if self.unchanged:
            return (
                ("not applied", 0.0, "") if change > noise else ("unjudged", None, "the adapter's change is below what its dtype can hold")
            )
        if self.rounded:
            return "merged", 1.0, ""
        if not all(map(math.isfinite, (change, both, found))):
            return "unjudged", None, "there are values that are not finite"
        if change <= noise:
            return "other", None, ""
        factor = both / change
        left = max(found - factor * both, 0.0)
        if left > max(_LEFT * found, _NOISE * noise):
            return "other", None, ""
        error = math.sqrt(noise / change)
        for whole, verdict in ((1.0, "merged"), (0.0, "not applied"), (2.0, "twice")):
            if abs(factor - whole) <= min(_FEW + 3 * error, 0.25):
                return verdict, whole, ""  # type: ignore[return-value]
        return "scaled", round(factor, 3), ""


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.flatten(), other.flatten()).double())


def _unit(magnitude: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance between neighbouring numbers of a dtype at this size."""
    _, exponent = torch.frexp(magnitude)
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    unit = torch.ldexp(torch.full_like(magnitude, torch.finfo(dtype).eps), exponent - 1)
    return torch.where(magnitude == 0, smallest, unit).clamp_min(smallest)
