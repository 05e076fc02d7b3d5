"""One file, one way of writing a report. A new format is one file with a `write`, and one line in the table below."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, TextIO

from peft_inspect.formats.view import View
from peft_inspect.records import Diagnosis

__all__ = ["FORMATS", "Command", "View", "writer"]

# rich draws a number when it is imported: a training script that prints a report goes on with the numbers it would have had.
_drawn = random.getstate()
importlib.import_module("rich.style")
random.setstate(_drawn)

Command = Literal["tree", "gradcheck", "check"]
Writer = Callable[[Diagnosis, TextIO], None]

# command → name of the format → module of this package that writes it
FORMATS: Mapping[Command, Mapping[str, str]] = {
    "tree": {"text": "tree.drawing", "json": "json", "html": "html", "svg": "svg", "markdown": "markdown"},
    "gradcheck": {"text": "text", "json": "json", "html": "html", "svg": "svg", "markdown": "markdown"},
    "check": {
        "text": "text",
        "json": "json",
        "sarif": "ci.sarif",
        "github": "ci.github",
        "junit": "ci.junit",
        "markdown": "markdown",
        "html": "html",
        "lora-config": "lora_config",
    },
}
DRAWN = frozenset({"text", "tree.drawing", "html", "svg", "markdown"})  # for people: these also take a View


def writer(command: Command, name: str, view: View) -> Writer:
    """What writes `name` for `command`: `write(report, out)`. Only the module of that format is imported.

    Raises KeyError for a format that the command does not have.
    """
    module = FORMATS[command][name]
    write: Callable[..., None] = importlib.import_module(f"{__name__}.{module}").write
    return partial(write, view=view) if module in DRAWN else write
