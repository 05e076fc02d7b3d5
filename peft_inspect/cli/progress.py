"""What is being done, on stderr while it is a terminal; nothing in pipes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that shows a step, until the next or the end."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    from peft_inspect.formats.names import visible

    console = Console(stderr=True)
    with Status(Text("starting"), console=console) as status:
        yield lambda step: status.update(Text(visible(f"{step} …")))
