"""The standard streams, whatever the shell gave, and what the process ends with."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

FOUND, FAILED, INTERRUPTED = 1, 2, 130


def silence(stream: TextIO) -> None:
    """Let a stream that takes nothing any more end quietly."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def have_streams() -> None:
    """Somewhere to write to where the shell gave none (`2>&-`): Python has None there, and a file opened next would get its number."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.fstat(number)
                continue
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8"))
