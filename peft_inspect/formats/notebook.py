"""What a notebook shows of a report or a tree: text that can be read at once, and the page behind it."""

from __future__ import annotations

import html

_TALL = 640  # pixels of the page once it is opened


def shown(text: str, page: str | None = None) -> str:
    """HTML for a cell's output: `text` as it is on a terminal; `page` in a frame of its own, in which its scripts may run and nothing else.

    Args:
        text: plain text, with every name in it made safe to show already.
        page: a whole HTML document.
    """
    cell = f'<pre style="white-space: pre; line-height: 1.3">{html.escape(text)}</pre>'
    if page is None:
        return cell
    frame = f'<iframe sandbox="allow-scripts" style="width: 100%; height: {_TALL}px; border: 0" srcdoc="{html.escape(page)}"></iframe>'
    return f"{cell}<details><summary>the whole report, with the module tree</summary>{frame}</details>"
