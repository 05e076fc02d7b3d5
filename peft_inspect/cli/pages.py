"""Rules on the screen: their list, and the page of one with its examples as real code."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.syntax import Syntax
from rich.text import Text

from peft_inspect.diagnose import precedence
from peft_inspect.formats.findings import STYLES
from peft_inspect.formats.screen import Line
from peft_inspect.records import Severity
from peft_inspect.rules import Rule, all_rules, page
from peft_inspect.rules.messages import Message

WIDE = 140  # columns from which a rule's title fits beside its name


def rule_list(rules: Sequence[Rule[Any]], width: int) -> Iterator[Line]:
    """Code, severity, name, and the first line of the page: beside them where the screen is wide, else below."""
    wide = max(len(rule.name) for rule in rules)
    for rule in rules:
        title = Text(page(rule).partition("\n")[0], style="dim")
        head = Text.assemble((rule.code, "bold"), " ", (f"{rule.severity.value:<7}", STYLES[rule.severity]), f" {rule.name}")
        if width >= WIDE:
            yield Line(Text.assemble(head, " " * (wide - len(rule.name) + 2), title))
        else:
            yield from (Line(head), Line(title, 6))


def rule_page(rule: Rule[Any]) -> Iterator[Line]:
    """The page of one rule."""
    yield from _explained(rule.code, rule.name, rule.severity, page(rule))
    for title, example in (("Broken", rule.broken), ("Fixed", rule.fixed)):
        yield Line(Text(title, style="bold"))
        yield from _code(textwrap.dedent(inspect.getsource(example)))
        yield Line(Text())
    for helper in _shared(rule):
        yield Line(Text("In both", style="bold"))
        yield from _code(textwrap.dedent(inspect.getsource(helper)))
        yield Line(Text())
    before = ", ".join(sorted(precedence(all_rules())[rule]))
    if before:
        because = f" {rule.because}" if rule.because else ""
        yield Line(Text(f"Gives way to {before} where they explain the same layers.{because}"))


def _shared(rule: Rule[Any]) -> list[Any]:
    """The functions of the rule's module that its examples call."""
    around = inspect.unwrap(rule.broken).__globals__
    called = dict.fromkeys((*rule.broken.__code__.co_names, *rule.fixed.__code__.co_names))
    return [value for name in called if inspect.isfunction(value := around.get(name)) and value.__module__ == rule.broken.__module__]


def message_pages(messages: Iterable[Message]) -> Iterator[Line]:
    """What messages mean, and the rules that tell their causes apart."""
    titles = {rule.code: rule for rule in all_rules()}
    for message in messages:
        yield Line(Text(message.text, style="bold"))
        yield Line(Text(f"said by {message.said_by}" if message.said_by else "a symptom", style="dim"))
        yield Line(Text())
        yield Line(Text(message.means))
        yield Line(Text())
        for code in message.rules:
            yield Line(Text.assemble((code, "bold"), f" {titles[code].name}"), 2)
        yield Line(Text())
    yield Line(Text("Which of them it is: peft-inspect run train.py, or gradcheck on the model. A rule's page: peft-inspect explain CODE"))


def _explained(code: str, name: str, severity: Severity, text: str) -> Iterator[Line]:
    yield Line(Text.assemble((code, "bold"), " ", (name, "bold"), " (", (severity.value, STYLES[severity]), ")"))
    yield Line(Text())
    for paragraph in text.split("\n\n"):
        yield from _paragraph(paragraph)
        yield Line(Text())


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
    for line in highlighted.split("\n"):
        yield Line(line, 4, hang=len(line.plain) - len(line.plain.lstrip()) + 4)
