"""Lines of text on a terminal, in a pipe or in a file. Names reach rich only inside `Text`, never as markup."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from typing import TextIO

from rich.console import Console
from rich.text import Text

from peft_inspect.formats.view import View
from peft_inspect.formats.wrapped import wrapped

UNLIMITED = 100_000  # columns of a pipe: nothing is wrapped, so that lines can be searched


@dataclass(frozen=True)
class Line:
    """One line. Where it does not fit, it goes on at the same indent and `hang` more; `cut` lines are cut instead."""

    text: Text
    indent: int = 0
    cut: bool = False
    hang: int = 0
    whole: bool = False  # neither wrapped nor cut: code that is to be copied

    @property
    def plain(self) -> str:
        """The line without styles."""
        return (" " * self.indent + self.text.plain).rstrip()


@dataclass(frozen=True)
class Screen:
    """Where a drawn format ends up: its width, whether it has colours, which characters it can show."""

    out: TextIO
    view: View

    @cached_property
    def console(self) -> Console:
        """A console that neither reads markup nor highlights nor wraps by itself."""
        terminal = (self.out.isatty() or None) if self.view.color is None else self.view.color  # None: as FORCE_COLOR says
        return Console(
            file=StringIO(), width=self.width, force_terminal=terminal, markup=False, highlight=False, emoji=False, legacy_windows=False
        )

    @cached_property
    def width(self) -> int:
        """Columns: those asked for, those of `COLUMNS` or of the terminal, else without limit."""
        if self.view.width is not None:
            return self.view.width
        if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns) > 0:
            return int(columns)
        if not self.out.isatty():
            return UNLIMITED
        try:
            return os.get_terminal_size(self.out.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    @cached_property
    def ascii(self) -> bool:
        """Whether to keep to 7-bit characters: asked for, or all that the output's encoding has."""
        encoding = getattr(self.out, "encoding", None) or "utf-8"
        return self.view.ascii or not encoding.lower().replace("-", "").startswith(("utf", "cp65001"))

    def show(self, lines: Iterable[Line]) -> None:
        """Write the lines, wrapped where the width is limited."""
        for line in lines:
            for text in self.fitted(line):
                self.console.print(_seven_bit(text) if self.ascii else text, soft_wrap=True)
        buffer = self.console.file
        assert isinstance(buffer, StringIO)
        self.out.write(buffer.getvalue())  # not by rich, which ends the process when the reader of a pipe is gone
        buffer.seek(0)
        buffer.truncate()

    def fitted(self, line: Line) -> Iterator[Text]:
        """The lines on the screen that one line takes."""
        pad = Text(" " * line.indent)
        if line.whole:
            yield pad + line.text
            return
        if line.cut or self.width >= UNLIMITED or line.indent + line.text.cell_len <= self.width:
            text = line.text.copy()
            if self.width < UNLIMITED:
                text.truncate(max(self.width - line.indent, 10), overflow="ellipsis")
            yield pad + text if text else text
            return
        first, *_ = wrapped(line.text, self._room(line.indent))
        yield pad + first
        rest = line.text[len(first.plain) :]
        rest = rest[len(rest.plain) - len(rest.plain.lstrip()) :]
        hang = min(line.hang, max(self.width - line.indent - 16, self.width // 2))
        for part in wrapped(rest, self._room(line.indent + hang)):
            yield pad + Text(" " * hang) + part

    def _room(self, indent: int) -> int:
        return max(self.width - indent, 10)


_ASCII = str.maketrans(
    {
        "–": "-",
        "→": ">",
        "×": "x",
        "·": "-",
        "…": "~",
        "◆": "*",
        "◇": "o",
        "├": "|",
        "└": "`",
        "─": "-",
        "│": "|",
        "✗": "x",
        "█": "#",
        "░": ".",
        "α": "a",
    }
)


def seven_bit(text: str) -> str:
    """`text` in 7-bit characters of the same width; what has no likeness is spelled as an escape."""
    return text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")


def _seven_bit(text: Text) -> Text:
    """Keeps the styles where the length stays the same, which it does for all signs of our own."""
    plain = seven_bit(text.plain)
    if len(plain) != len(text.plain):
        return Text(plain)
    copy = text.copy()
    copy.plain = plain
    return copy
