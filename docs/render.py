"""Regenerate the screens in README and docs from the commands above them, and the rule pages.

    python docs/render.py            # write
    python docs/render.py --check    # exit 1 where a page has drifted

A block follows a comment that holds its command:

    <!-- output: peft-inspect tree arch:llama -->
    ```text
    …
    ```
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from typer.testing import CliRunner

from peft_inspect.cli import app
from peft_inspect.rules import all_rules, page

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- output: (?P<command>.+?) -->\n```text\n)(?P<output>.*?)(```)", re.DOTALL)
PLAIN = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "HF_HUB_OFFLINE": "1"}


def screen(command: str) -> str:
    """What a command of peft-inspect prints at 80 columns, without colour, when it is run from the root of the project."""
    name, *arguments = shlex.split(command)
    assert name == "peft-inspect", f"only the tool's own output is shown: {command}"
    ran = CliRunner().invoke(app, arguments, env=PLAIN)
    assert ran.exit_code in (0, 1), ran.stderr
    return "\n".join(line.rstrip() for line in ran.stdout.splitlines()) + "\n"


def rendered(text: str) -> str:
    """A page with every block replaced by what its command prints now."""
    return BLOCK.sub(lambda block: block[1] + screen(block["command"]) + block[4], text)


def rule_pages() -> str:
    """docs/rules.md: the page of every rule, from its module."""
    lines = ["# Rules", "", "Generated from the rules themselves; `peft-inspect explain RULE` prints a page with its examples.", ""]
    lines += ["| code | name | severity |", "|---|---|---|"]
    lines += [f"| [{rule.code}](#{rule.code.lower()}-{rule.name}) | {rule.name} | {rule.severity} |" for rule in all_rules()]
    for rule in all_rules():
        lines += ["", f"## {rule.code} {rule.name}", "", page(rule)]
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Every generated page as it should read."""
    sources = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts = {path: path.read_text(encoding="utf-8") for path in sources}
    return {path: rendered(text) for path, text in texts.items() if BLOCK.search(text)} | {ROOT / "docs" / "rules.md": rule_pages()}


def main() -> int:
    """Write the pages, or name those that have drifted."""
    drifted = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in drifted:
            print(f"{path.relative_to(ROOT)} has drifted: run python docs/render.py")
        return bool(drifted)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
