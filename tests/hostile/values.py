"""Values that mean ill, and good data with one thing wrong in it: most of that gets as deep as good data does."""
# ruff: noqa: E501 - tables of values

from __future__ import annotations

import random
from typing import Any

PROOF = "FOREIGN-CODE-RAN"  # a file or environment name that only code from the input would leave
_RUN = f"__import__('os').system('touch {PROOF}')"
TEXTS = (
    "", " ", "\x1b[31mred\x1b[0m", "a\n::error::b", "##[error]c", "\u202eabc", "\ufffe", "\ud800", "x" * 5000, "~nosuchuser/x", "../../etc/passwd", "\x00",
    "<script>alert(1)</script>", _RUN, f"$(touch {PROOF})", f"; touch {PROOF}", "(.*)*x", "((a|.)*)*z", "[", "(?P<", "null",
    "q_proj", "all-linear", "evil.py:build", "https://localhost:9/x", "%s%n{0}{x.__class__}", "]]>", "日本", "\r\n", "file:///etc/passwd",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 10**9, 2**31, 2**62, 2**63, -(2**63), 10**18, 0.5, 1e308, float("inf"), float("nan"), 10**400, 10**5000)


def value(draw: random.Random, depth: int = 0) -> Any:
    """Anything that JSON can hold."""
    kind = draw.randrange(8 if depth < 3 else 5)
    if kind < 2:
        return draw.choice(TEXTS)
    if kind < 4:
        return draw.choice(NUMBERS)
    if kind == 4:
        return draw.choice((None, True, False))
    if kind == 5:
        return [value(draw, depth + 1) for _ in range(draw.choice((0, 1, 2, 2, 40)))]
    return {draw.choice((*TEXTS, "a", "b")): value(draw, depth + 1) for _ in range(draw.randrange(4))}


def near(draw: random.Random, good: Any) -> Any:
    """What could stand in the place of `good` by mistake: mostly another one of its type, else of another, or one of its parts spoilt."""
    if draw.random() < 0.1:
        return value(draw)
    same, other = _alike(draw, good)
    return draw.choice(same if same and draw.random() < 0.65 else other)


def _alike(draw: random.Random, good: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Others of its type, and of none."""
    if isinstance(good, dict) and good:
        name = draw.choice([*good])
        return ({**good, name: near(draw, good[name])}, {name: good[name]}, {**good, draw.choice(TEXTS): good[name]}, {}), (
            [good],
            name,
            None,
        )
    if isinstance(good, list) and good:
        at = draw.randrange(len(good))
        inside = [*good[:at], near(draw, good[at]), *good[at + 1 :]]
        return (inside, inside, inside, good * 2, good[::-1], good[:at], []), ([good], good[at], [*good, None], None, {"a": good})
    if isinstance(good, bool):
        return (not good,), (None, str(good), int(good), [good], 2)
    if isinstance(good, int):
        return (0, 1, 2, 3, -1, good + 1, good * 2, good // 2, -good, 100, 4097), (
            str(good),
            float(good),
            True,
            None,
            [good],
            {"a": good},
            good / 3,
        )
    if isinstance(good, float):
        return (0.0, 1.0, -good, good * 2, 1e-45, 1e38, 2.0), (str(good), 1, None, [good], float("nan"))
    if isinstance(good, str):
        same = (
            good.upper(),
            good[:-1],
            good + ".",
            f".*{good}",
            f"{good}\n",
            f" {good}",
            f"{good},{good}",
            f"({good})",
            draw.choice(TEXTS),
            draw.choice(TEXTS),
        )
        return same, ([good], None, 0, {good: good}, True)
    return (), (0, 1, "", [], {}, True, value(draw))


def spoilt(draw: random.Random, good: dict[str, Any], more: tuple[str, ...] = ()) -> dict[str, Any]:
    """A mapping with one of its entries replaced, left out or added; sometimes a few."""
    bad = dict(good)
    for _ in range(draw.choice((1, 1, 1, 1, 2, 3))):
        name = draw.choice((*good, *more, draw.choice(TEXTS))) if draw.random() < 0.4 else draw.choice([*good])
        if draw.random() < 0.1:
            bad.pop(name, None)
        else:
            bad[name] = near(draw, good[name]) if name in good else value(draw)
    return bad


def torn(draw: random.Random, data: bytes) -> bytes:
    """Bytes with some cut off, changed or put in."""
    at = draw.randrange(len(data) + 1)
    return draw.choice((data[:at], data[:at] + draw.randbytes(4) + data[at:], data[:at] + draw.randbytes(4) + data[at + 4 :]))


def argument(text: str) -> str:
    """As a process can be given: no null characters and no half ones."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()
