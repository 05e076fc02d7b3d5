r"""Regular expressions that miss by the start of the path: PEFT matches them against the whole of it.

`model\.layers\.\d+\.self_attn\.q_proj` is right for a language model and reaches nothing in a model that holds one as
`model.language_model`, and a path that was copied from a wrapped model begins with `base_model.model.`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

_LITERAL = re.compile(r"(?:\w+\\?\.(?![*+?{]))+(?=.)")  # names with dots between them, before anything that varies
_MOST = 8
_ANY = r"(?:.*\.)?"


def whole_path(pattern: str, paths: Iterable[str], preferred: str | None = None) -> str | None:
    """A regular expression as near to `pattern` as one that reaches any of `paths` can be; None where there is none.

    Args:
        pattern: reaches none of them.
        paths: of modules that can carry an adapter.
        preferred: path of the part of the model that is meant where nothing says which, the language model.
    """
    every = tuple(paths)
    for names, rest in _shortened(pattern):
        if found := _within(names, rest, every, preferred):
            return found
    return None


def _shortened(pattern: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The names before anything that varies, with ever more of them left out, and what follows."""
    pattern = pattern.removeprefix("^")
    literal = None if _has_alternatives(pattern) else _LITERAL.match(pattern)
    names = tuple(re.findall(r"\w+", literal[0])) if literal else ()
    rest = pattern[literal.end() :] if literal else f"(?:{pattern})"
    if len(names) > _MOST:
        return
    for count in range(len(names), -1, -1):
        yield from ((kept, rest) for kept in itertools.combinations(names, count))


def _has_alternatives(pattern: str) -> bool:
    """Whether the pattern as a whole is one thing or another, so that it begins in several ways."""
    inner = re.sub(r"\\.|\[[^]]*\]", "", pattern)
    while (fewer := re.sub(r"\([^()]*\)", "", inner)) != inner:
        inner = fewer
    return "|" in inner


def _within(names: tuple[str, ...], rest: str, paths: tuple[str, ...], preferred: str | None) -> str | None:
    """The names with room between them for names that the pattern does not know, and none where none is needed."""
    gaps = [_ANY] * (len(names) + 1)
    reached = _reached(_joined(names, gaps, rest), paths)
    if not reached:
        return None
    inside = [path for path in reached if preferred and path.startswith(f"{preferred}.")]
    if preferred and inside and len(inside) < len(reached):
        known = preferred.split(".")
        names = (*known, *(name for name in names if name not in known))
        gaps = ["", *[""] * (len(known) - 1), *[_ANY] * (len(names) - len(known) + 1)]
        reached = _reached(_joined(names, gaps, rest), paths)
    for at in range(len(gaps)):
        fewer = [*gaps[:at], "", *gaps[at + 1 :]]
        if _reached(_joined(names, fewer, rest), paths) == reached:
            gaps = fewer
    return _joined(names, gaps, rest)


def _joined(names: tuple[str, ...], gaps: list[str], rest: str) -> str:
    return gaps[0] + "".join(rf"{re.escape(name)}\.{gap}" for name, gap in zip(names, gaps[1:], strict=True)) + rest


def _reached(pattern: str, paths: tuple[str, ...]) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error:
        return []
    return [path for path in paths if compiled.fullmatch(path)]
