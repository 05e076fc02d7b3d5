"""Module paths as short as a person would write them: by their names, or as one regular expression."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable


def shortened(paths: Collection[str], among: Iterable[str]) -> list[str] | str:
    """`target_modules` that reach these modules and no other of `among`: last parts of paths where they tell them apart, else a pattern."""
    wanted, every = set(paths), _distinct(among)
    names = _distinct(path.rpartition(".")[2] for path in paths)
    reached = {path for path in every if path.rpartition(".")[2] in names}
    return names if reached == wanted else as_pattern(paths, every)


def as_pattern(paths: Collection[str], among: Iterable[str]) -> str:
    r"""One regular expression that matches these paths and no other of `among`, indices written as `\\d+` where all are meant."""
    wanted, every = set(paths), _distinct(among)
    groups: dict[str, list[str]] = {}
    for path in _distinct(paths):
        groups.setdefault(_template(path), []).append(path)
    taken = {template: {path for path in every if _template(path) == template} for template in groups}
    by_stem: dict[tuple[str, str], list[str]] = {}
    for template, members in groups.items():
        stem, _, name = template.rpartition(".")
        by_stem.setdefault((stem, _indices(members, taken[template] <= wanted)), []).append(name)
    alternatives = [f"{_written(stem, indices)}{_either(names, dot=bool(stem))}" for (stem, indices), names in by_stem.items()]
    return alternatives[0] if len(alternatives) == 1 else f"(?:{'|'.join(alternatives)})"


def _template(path: str) -> str:
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1#", path)


def _indices(members: list[str], all_of_them: bool) -> str:
    r"""The indices of paths of one template: `\\d+` for each place where all are meant, else those that are."""
    if all_of_them:
        return ""
    places = [re.findall(r"(?:^|\.)(\d+)(?=\.|$)", path) for path in members]
    columns = [_distinct(column) for column in zip(*places, strict=True)]
    whole = len(members) == len(list(itertools.product(*columns)))
    return ";".join("|".join(sorted(column, key=int)) for column in columns) if whole else ";;".join(map(".".join, places))


def _written(stem: str, indices: str) -> str:
    text = re.escape(stem).replace(r"\#", "#")
    if ";;" in indices:
        whole = [path.split(".") for path in indices.split(";;")]
        return "(?:" + "|".join(_filled(text, path) for path in whole) + ")"
    return _filled(text, [f"(?:{column})" if "|" in column else column for column in indices.split(";")] if indices else None)


def _filled(text: str, indices: list[str] | None) -> str:
    for index in indices or ():
        text = text.replace("#", index, 1)
    return text.replace("#", r"\d+")


def _either(names: list[str], *, dot: bool) -> str:
    texts = [r"\d+" if name == "#" else re.escape(name) for name in _distinct(names)]
    one = texts[0] if len(texts) == 1 else f"(?:{'|'.join(texts)})"
    return rf"\.{one}" if dot else one


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
