"""Names from models and configs, made safe to show and short to read.

Names are untrusted: a module may be called anything, terminal escape codes and commands to a CI runner included.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, TextIO

from peft_inspect.records import runs_of

# controls, bidirectional overrides, surrogates, private use, characters that are none, line breaks
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# What the runner of GitHub Actions obeys in any output: a line that begins with ::, whatever blanks stand before it, and ##[
# anywhere (ActionCommand.cs). A long line is wrapped at blanks, so that each word may come to stand first.
_COMMAND = re.compile(r"(?:(?<=\s)|^):(?=:[\w-])|#(?=#\[)")


def visible(text: str, *, keep: str = "") -> str:
    r"""`text` with everything that could steer a terminal or a CI runner or hide in a page spelled out, `\x1b` for instance.

    The characters of `keep` stay as they are.
    """
    if ":" in text or "#" in text:
        text = _COMMAND.sub(lambda found: _spelled(found[0]), text)
    if text.isprintable():
        return text
    return "".join(
        character if character in keep or unicodedata.category(character) not in _INVISIBLE else _spelled(character) for character in text
    )


def shortened(text: str, most: int = 4000) -> str:
    """`text` with its middle left out where it has more than `most` characters: errors quote what they were given, however long."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} … {len(text) - most:,} characters left out … {text[-most // 2 :]}"


def write_json(data: Any, out: TextIO, **how: Any) -> None:
    """JSON and a line break. It goes to the output of CI jobs as well: what their runner obeys anywhere in a line is spelled out."""
    text = json.dumps(data, indent=2, **how)
    out.write(text.replace("##[", "#\\u0023[") + "\n")  # in a string, since JSON has no # elsewhere


def _spelled(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def is_index(name: str) -> bool:
    """Whether `name` is an index of a list of modules."""
    return name.isdecimal() and name == str(int(name))


def ranges(numbers: Iterable[int], dash: str = "–", gap: str = ",") -> str:
    """`0–4,6–10` for the indices of a stack."""
    return gap.join(str(first) if first == last else f"{first}{dash}{last}" for first, last in runs_of(numbers))


def brief_ranges(numbers: Iterable[int], gap: str = ",") -> str:
    """The same for a person, who is not to read hundreds of ranges: `0–994 in steps of 7`, `1–6,8–10,12–13,…,995–999`."""
    spans = list(runs_of(numbers))
    steps = {later[0] - earlier[0] for earlier, later in pairwise(spans)}
    if len(spans) > _SPANS and len(steps) == 1 and all(first == last for first, last in spans):
        return f"{spans[0][0]}–{spans[-1][0]} in steps of {steps.pop()}"
    shown = [ranges(range(first, last + 1)) for first, last in spans]
    return gap.join(shown if len(shown) <= _SPANS else (*shown[:_FIRST], "…", shown[-1]))


def fold(paths: Iterable[str], dash: str = "–") -> tuple[str, ...]:
    """Module paths that differ in an index or in one name, as one: `layers.0–31.self_attn.{q_proj,v_proj}`.

    Never hides a difference: what a folded path stands for is exactly `paths`.
    """
    return tuple(label for label, _ in fold_with_first(paths, dash))


def fold_with_first(paths: Iterable[str], dash: str = "–") -> tuple[tuple[str, str], ...]:
    """The folded paths, each with the first path that it stands for."""
    root = _Branch()
    for path in dict.fromkeys(paths):
        root.add(path.split("."))
    return tuple((".".join(labels), ".".join(names)) for labels, names in root.folded(Interned(), dash))


_SPANS, _FIRST = 12, 4  # ranges that are all shown; those that are shown of more


class Interned(dict[tuple[object, ...], int]):
    """A number for each distinct shape of a subtree."""

    def of(self, key: tuple[object, ...]) -> int:
        """The number of this shape, the same for equal ones."""
        return self.setdefault(key, len(self))


class _Branch:
    """The paths below one name."""

    def __init__(self) -> None:
        self.children: dict[str, _Branch] = {}
        self.ends = False

    def add(self, names: Sequence[str]) -> None:
        branch = self
        for name in names:
            branch = branch.children.setdefault(name, _Branch())
        branch.ends = True

    def shape(self, interned: Interned) -> int:
        return interned.of((self.ends, *((name, child.shape(interned)) for name, child in sorted(self.children.items()))))

    def folded(self, interned: Interned, dash: str) -> list[tuple[list[str], list[str]]]:
        """The labels and the first names below this one, equal branches in one."""
        alike: dict[tuple[int, bool], list[str]] = {}
        for name, child in self.children.items():
            alike.setdefault((child.shape(interned), is_index(name)), []).append(name)
        lines: list[tuple[list[str], list[str]]] = [([], [])] if self.ends else []
        for (_, numbered), names in alike.items():
            first = names[0]
            head = ranges(map(int, names), dash) if numbered else first if len(names) == 1 else "{" + ",".join(names) + "}"
            lines += [([head, *labels], [first, *firsts]) for labels, firsts in self.children[first].folded(interned, dash)]
        return lines
