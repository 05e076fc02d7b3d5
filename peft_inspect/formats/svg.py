"""The tree or the gradient report as an SVG picture for READMEs and slides: text stays text, nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING, TextIO
from xml.sax.saxutils import escape, quoteattr

from rich.cells import cell_len
from rich.style import Style
from rich.terminal_theme import TerminalTheme

from peft_inspect.formats.names import visible
from peft_inspect.formats.screen import Line, Screen
from peft_inspect.formats.text import lines as report_lines
from peft_inspect.formats.tree.drawing import ModelTree
from peft_inspect.formats.view import View
from peft_inspect.records import Diagnosis

if TYPE_CHECKING:
    from rich.text import Text

WIDTH = 100  # columns, where none are asked for
CELL, ROW, MARGIN = 8.4, 19, 16  # pixels
GROUND, INK = "#14171c", "#e7eaee"
# black, red, green, yellow, blue, magenta, cyan, white; the bright ones alike. All readable on the dark ground.
_COLORS = [
    (90, 98, 110),
    (255, 125, 115),
    (127, 212, 154),
    (242, 184, 75),
    (138, 180, 248),
    (215, 160, 240),
    (124, 199, 232),
    (231, 234, 238),
]
_WORD = re.compile(r"\S+")
THEME = TerminalTheme((20, 23, 28), (231, 234, 238), _COLORS, _COLORS)


def write(report: Diagnosis, out: TextIO, view: View | None = None) -> None:
    """Write the picture of what the command shows as text."""
    view = view or View()
    screen = Screen(StringIO(), replace(view, width=view.width or WIDTH, color=True))
    lines = ModelTree(report, view).lines(screen.width) if view.command == "tree" else report_lines(report, screen)
    out.write(picture(lines, screen, title=f"peft-inspect {view.command} {report.source}"))


def picture(lines: Iterable[Line], screen: Screen, *, title: str) -> str:
    """An SVG document of lines as they are on a screen."""
    texts = [text for line in lines for text in screen.fitted(line)]
    wide = max((text.cell_len for text in texts), default=0) * CELL + 2 * MARGIN
    high = len(texts) * ROW + 2 * MARGIN
    body = "\n".join(row for at, text in enumerate(texts) for row in _row(text, MARGIN + (at + 0.75) * ROW, screen))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high:.0f}" width="{wide:.0f}" height="{high:.0f}" '
        f'role="img" aria-label={quoteattr(visible(title))}>\n'
        f'<rect width="100%" height="100%" rx="8" fill="{GROUND}"/>\n'
        f'<g font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="14" fill="{INK}">\n'
        f"{body}\n</g>\n</svg>\n"
    )


def _row(text: Text, y: float, screen: Screen) -> Iterator[str]:
    """One element per word, each held to its columns whatever the font. Viewers drop repeated spaces, so there are none."""
    column = 0
    for segment in text.render(screen.console):
        style = _attributes(segment.style or Style.null())
        for word in _WORD.finditer(segment.text):
            x = MARGIN + (column + cell_len(segment.text[: word.start()])) * CELL
            width = cell_len(word[0]) * CELL
            yield f'<text x="{x:.1f}" y="{y:.1f}" textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs"{style}>{escape(word[0])}</text>'
        column += cell_len(segment.text)


def _attributes(style: Style) -> str:
    found = ""
    if style.color is not None and not style.color.is_default:
        found += f' fill="{style.color.get_truecolor(THEME).hex}"'
    if style.bold:
        found += ' font-weight="bold"'
    if style.dim:
        found += ' opacity="0.75"'
    return found
