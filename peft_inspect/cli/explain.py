"""`peft-inspect explain [RULE]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peft_inspect.cli import completion
from peft_inspect.cli.help import GroupedCommand
from peft_inspect.cli.inspecting import failures
from peft_inspect.cli.output import Output
from peft_inspect.diagnose import named
from peft_inspect.formats import View
from peft_inspect.rules import Rule, all_rules
from peft_inspect.rules.messages import Message, matching

if TYPE_CHECKING:
    from peft_inspect.formats.screen import Screen


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(cls=GroupedCommand)(explain)


def explain(
    rule: Annotated[
        str | None,
        typer.Argument(
            metavar="RULE",
            help="A code, a name, a prefix such as PI3, or a message that you saw, in quotes.",
            show_default=False,
            rich_help_panel="Argument",
            autocompletion=completion.rules,
        ),
    ] = None,
    ascii_: Annotated[bool, typer.Option("--ascii", help="7-bit characters only.")] = False,
) -> None:
    """A rule's page: what it is, why it matters, a broken and a fixed program. Without a rule: the list of all."""
    from peft_inspect.formats.screen import Screen

    with failures(debug=False):
        if rule is not None and (seen := matching(rule)):
            Output().write(lambda out: _show_messages(seen, Screen(out, View(ascii=ascii_))))
            return
        chosen = all_rules() if rule is None else named((rule,))
        Output().write(lambda out: _show(chosen, Screen(out, View(ascii=ascii_))))


def _show_messages(seen: Sequence[Message], screen: Screen) -> None:
    from peft_inspect.cli.pages import message_pages

    screen.show(message_pages(seen))


def _show(rules: Sequence[Rule[Any]], screen: Screen) -> None:
    from peft_inspect.cli.pages import rule_list, rule_page

    screen.show(rule_page(rules[0]) if len(rules) == 1 else rule_list(rules, screen.width))
