"""The report as one HTML file: no network, no build step, works from a mail attachment.

Names never become markup: all data is JSON inside a script element that does not run, and the page's script
puts it on the screen as text. The content security policy admits only this script and this style, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
import re
from collections.abc import Mapping
from typing import Any, TextIO

from peft_inspect.formats.html.payload import payload
from peft_inspect.formats.names import visible
from peft_inspect.formats.text import plain
from peft_inspect.formats.tree.drawing import ModelTree
from peft_inspect.formats.view import View
from peft_inspect.records import Diagnosis

SCRIPTS = ("page.js", "map.js", "tree.js")  # one scope: helpers and what stands still, the gradient map, the module tree
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def write(report: Diagnosis, out: TextIO, view: View | None = None) -> None:
    """Write the page."""
    view = view or View()
    script, style = f'"use strict";\n(() => {{\n{"".join(map(_part, SCRIPTS))}}})();\n', _part("report.css")
    parts: Mapping[str, str] = {
        "policy": f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'",
        "title": html.escape(visible(report.source)),
        "style": style,
        "script": script,
        "data": _inert(payload(report, view)),
        "text": html.escape(str(ModelTree(report, view)) if view.command == "tree" else plain(report)),
    }
    out.write(_PLACE.sub(lambda place: parts[place[1]], _part("page.html")))


def _part(name: str) -> str:
    return importlib.resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _inert(data: Mapping[str, Any]) -> str:
    """JSON in which nothing can end the script element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
