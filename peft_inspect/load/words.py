"""Near misses: the names that exist, closest to one that does not."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from peft_inspect.records import runs_of

if TYPE_CHECKING:
    from collections.abc import Iterable


def closest(name: str, known: Iterable[str], limit: int = 3, cutoff: float = 0.5) -> list[str]:
    """At most `limit` of `known`, nearest spelling to `name` first; `cutoff` 1 accepts only equal names, 0 any."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=limit, cutoff=cutoff)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; the closest are 'a', 'b'`, or nothing when nothing is near."""
    names = closest(name, known)
    return f"; the closest {'is' if len(names) == 1 else 'are'} {', '.join(map(repr, names))}" if names else ""


def listed(names: Iterable[str], limit: int = 8) -> str:
    """Names in a sentence, cut after `limit` with the number of those left out."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def spans(numbers: Iterable[int]) -> str:
    """`0–4, 6–10` for numbers in any order."""
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs_of(numbers))
