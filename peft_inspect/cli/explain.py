"""`peft-inspect explain [RULE]`."""

from __future__ import annotations

from typing import Annotated

import typer

from peft_inspect.cli.output import Output
from peft_inspect.cli.run import failures
from peft_inspect.diagnose import named
from peft_inspect.formats import View
from peft_inspect.rules import all_rules


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(explain)


def explain(
    rule: Annotated[str | None, typer.Argument(help="A code, a name, or a prefix such as PI3.", show_default=False)] = None,
    ascii_: Annotated[bool, typer.Option("--ascii", help="7-bit characters only.")] = False,
) -> None:
    """A rule's page: what it is, why it matters, a broken and a fixed program. Without a rule: the list of all."""
    from peft_inspect.cli.pages import rule_list, rule_page
    from peft_inspect.formats.screen import Screen

    with failures(debug=False):
        chosen = all_rules() if rule is None else named((rule,))
        lines = rule_page(chosen[0]) if len(chosen) == 1 and rule is not None else rule_list(chosen)
        Output().write(lambda out: Screen(out, View(ascii=ascii_)).show(lines))
