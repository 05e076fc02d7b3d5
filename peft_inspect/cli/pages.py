"""Rules on the screen: their list, and the page of one with its examples as real code."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.syntax import Syntax
from rich.text import Text

from peft_inspect.formats.findings import STYLES
from peft_inspect.formats.screen import Line
from peft_inspect.records import Severity
from peft_inspect.rules import Rule, all_rules, page
from peft_inspect.rules.messages import Message
from peft_inspect.rules.written_out import program

WIDE = 140  # columns from which a rule's title fits beside its name
_SIGNS = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.NOTE: "·"}
_GROUPS = {
    "PI0": "What the project pins",
    "PI1": "What the config reaches",
    "PI2": "What runs in an adapter's place",
    "PI3": "Whether gradients arrive",
    "PI4": "Adapter files",
    "PI5": "The optimizer's step",
}


def rule_list(rules: Sequence[Rule[Any]], width: int) -> Iterator[Line]:
    """All rules in groups on one screen; with their titles where the screen is wide, or where they are of one group."""
    groups: dict[str, list[Rule[Any]]] = {}
    for rule in rules:
        groups.setdefault(_GROUPS[rule.code[:3]], []).append(rule)
    for group, members in groups.items():
        yield Line(Text(group, style="bold"))
        yield from _titled(members, width) if width >= WIDE or len(groups) == 1 else _named(members, width)
    yield Line(
        Text("✗ error  ! warning  · note; the page of one: peft-inspect explain RULE; a group with titles: peft-inspect explain PI3")
    )


def _named(rules: Sequence[Rule[Any]], width: int) -> Iterator[Line]:
    """Sign, code and name of each, as many on a line as it has room for."""
    line = Text()
    for rule in rules:
        entry = Text.assemble((_SIGNS[rule.severity], STYLES[rule.severity]), " ", (rule.code, "bold"), f" {rule.name}")
        if line and 2 + line.cell_len + 2 + entry.cell_len > width:
            yield Line(line, 2)
            line = Text()
        line.append("  " if line else "").append(entry)
    yield Line(line, 2)


def _titled(rules: Sequence[Rule[Any]], width: int) -> Iterator[Line]:
    """One rule after another: code, severity, name and title."""
    wide = max(len(rule.name) for rule in rules)
    for rule in rules:
        title = Text(page(rule).partition("\n")[0], style="dim")
        head = Text.assemble((rule.code, "bold"), " ", (f"{rule.severity.value:<7}", STYLES[rule.severity]), f" {rule.name}")
        if width >= WIDE:
            yield Line(Text.assemble(head, " " * (wide - len(rule.name) + 2), title), 2)
        else:
            yield from (Line(head, 2), Line(title, 8))


def rule_page(rule: Rule[Any]) -> Iterator[Line]:
    """The page of one rule, and its two examples as a program that runs where it is pasted."""
    yield from _explained(rule.code, rule.name, rule.severity, page(rule))
    yield Line(Text("Broken and fixed, as a program: paste it into a file and run it.", style="bold"))
    yield Line(Text())
    yield from (Line(line, whole=True) for line in _highlighted(program(rule)))


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
    for line in _highlighted(code):
        yield Line(line, 4, hang=len(line.plain) - len(line.plain.lstrip()) + 4)


def _highlighted(code: str) -> Iterable[Text]:
    return Syntax("", "python", background_color="default").highlight(code.rstrip()).split("\n")
