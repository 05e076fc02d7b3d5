"""Rules on the screen: their list, and the page of one with its examples as real code."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from rich.syntax import Syntax
from rich.text import Text

from peft_inspect.formats.findings import STYLES
from peft_inspect.formats.screen import Line
from peft_inspect.rules import Rule, page


def rule_list(rules: Sequence[Rule[Any]]) -> Iterator[Line]:
    """Code, severity, name, and the first line of the page."""
    wide = max(len(rule.name) for rule in rules)
    for rule in rules:
        title = page(rule).partition("\n")[0]
        yield Line(
            Text.assemble(
                (rule.code, "bold"), " ", (f"{rule.severity.value:<7}", STYLES[rule.severity]), f" {rule.name:<{wide}}  ", (title, "dim")
            )
        )


def rule_page(rule: Rule[Any]) -> Iterator[Line]:
    """The page of one rule."""
    yield Line(Text.assemble((rule.code, "bold"), " ", (rule.name, "bold"), " (", (rule.severity.value, STYLES[rule.severity]), ")"))
    yield Line(Text())
    for paragraph in page(rule).split("\n\n"):
        yield from _paragraph(paragraph)
        yield Line(Text())
    for title, example in (("Broken", rule.broken), ("Fixed", rule.fixed)):
        yield Line(Text(title, style="bold"))
        yield from _code(textwrap.dedent(inspect.getsource(example)))
        yield Line(Text())
    if rule.explained_by:
        yield Line(Text(f"Gives way to {', '.join(rule.explained_by)} where they explain the same layers."))


def _paragraph(paragraph: str) -> Iterator[Line]:
    """Prose as one line that wraps anywhere, indented code as it stands."""
    lines = paragraph.split("\n")
    if all(line.startswith("    ") for line in lines if line):
        yield from _code(textwrap.dedent(paragraph))
    elif any(line.startswith(("- ", "    ", "  ")) for line in lines):
        yield from (Line(Text(line)) for line in lines)
    else:
        yield Line(Text(" ".join(lines)))


def _code(code: str) -> Iterator[Line]:
    highlighted = Syntax("", "python", background_color="default").highlight(code.rstrip())
    yield from (Line(line, 4) for line in highlighted.split("\n"))
