"""Where a name is written: the line of a keyword, of a key, of a string or of a call, in one statement or in whole files."""

from __future__ import annotations

import ast
import linecache
import tokenize
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from peft_inspect.records import Source
from peft_inspect.structure.source.lines import shown

if TYPE_CHECKING:
    from peft_inspect.structure.source.lines import Line

_OPENING, _CLOSING = "([{", ")]}"


def within(line: Line, names: Collection[str]) -> Line | None:
    """Where the statement at this line writes the first of the names, or the only place where its file does; None where neither does."""
    code, number = line
    lines = linecache.getlines(code.co_filename)
    statement, file = _by_name(_statement(lines, number)), _by_name(_tokens(lines, 1)) if names else {}
    alone = {name: places for name, places in file.items() if len(places) == 1}
    found = next((places[name][0] for name in names for places in (statement, alone) if name in places), None)
    return None if found is None else (code, found)


def only_place(files: Iterable[str], names: Collection[str]) -> Source | None:
    """The one line of all these files that writes the first of the names which they write at one place only; None where there is none."""
    written: dict[str, list[tuple[str, int]]] = {}
    for file in dict.fromkeys(files):
        for name, numbers in _by_name(_tokens(linecache.getlines(file), 1)).items():
            written.setdefault(name, []).extend((file, number) for number in numbers)
    place = next((written[name][0] for name in names if len(written.get(name, ())) == 1), None)
    if place is None:
        return None
    file, number = place
    return Source(shown(file), number, "", linecache.getline(file, number).strip())


def _tokens(lines: list[str], first: int) -> Iterator[tokenize.TokenInfo]:
    """Tokens from a line on, which may lie within a statement, as far as they can be read."""
    rest = iter(lines[first - 1 :])
    try:
        yield from tokenize.generate_tokens(lambda: next(rest, ""))
    except (tokenize.TokenError, SyntaxError):  # what is left of a statement that began before
        return


def _statement(lines: list[str], first: int) -> Iterator[tokenize.TokenInfo]:
    """The tokens of the brackets that open on this line, with line numbers of the file."""
    depth = 0
    for token in _tokens(lines, first):
        depth += (token.string in _OPENING) - (token.string in _CLOSING) if token.type == tokenize.OP else 0
        yield token._replace(start=(token.start[0] + first - 1, token.start[1]))
        if (depth <= 0 and token.string in _CLOSING and token.type == tokenize.OP) or token.type == tokenize.NEWLINE:
            return


def _by_name(tokens: Iterable[tokenize.TokenInfo]) -> dict[str, list[int]]:
    """The lines on which each name is given a value or called, and on which each string stands."""
    found: dict[str, list[int]] = {}
    before = None
    for token in tokens:
        if token.type == tokenize.STRING and len(token.string) < 100:
            try:
                text = ast.literal_eval(token.string)
            except (ValueError, SyntaxError):
                text = None
            if isinstance(text, str):
                found.setdefault(text, []).append(token.start[0])
        elif before is not None and before.type == tokenize.NAME and token.string in ("=", "("):
            found.setdefault(before.string, []).append(before.start[0])
        before = token
    return found
