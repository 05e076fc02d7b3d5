"""Numbers for people."""

from __future__ import annotations


def count(number: int, *, exact: bool = False) -> str:
    """`65.5K`, `8.03B`; to the last digit below ten thousand, or when asked for."""
    if exact or number < 10_000:
        return f"{number:,}"
    return _scaled(number, 1000, ("", "K", "M", "B", "T", "Q"))


def share(part: int, whole: int) -> str:
    """`8.1%`; never `0.0%` for something, nor `100.0%` for less than everything."""
    percent = round(100 * part / max(whole, 1), 1)
    if part and percent == 0:
        return "<0.1%"
    return f"{min(percent, 99.9) if part < whole else percent:.1f}%"


def size(nbytes: int, *, exact: bool = False) -> str:
    """`15.0 GiB`."""
    return f"{nbytes:,} B" if exact else _scaled(nbytes, 1024, (" B", " KiB", " MiB", " GiB", " TiB", " PiB"))


def _scaled(number: float, step: int, units: tuple[str, ...]) -> str:
    """Three digits and a unit."""
    at = 0
    while number >= step * 0.9995 and at < len(units) - 1:
        number /= step
        at += 1
    digits = 0 if at == 0 or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f}{units[at]}"
