"""The standard streams, whatever the shell gave, and what the process ends with."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_HIGH = 600  # programs that close all descriptors rarely go further than 256, and 1,024 are allowed
FOUND, FAILED, INTERRUPTED = 1, 2, 130


def silence(stream: TextIO) -> None:
    """Let a stream that takes nothing any more end quietly."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class KeptStreams:
    """Standard output and error as the shell gave them, whatever a program makes of them: it may close, replace or lose them."""

    def __init__(self) -> None:
        streams: Any = (("stdout", sys.stdout, 1), ("stderr", sys.stderr, 2))
        self._kept: list[tuple[str, Any, int, int | None]] = [(*stream, _copied(*stream[1:])) for stream in streams]

    def restore(self) -> None:
        """Have them from now on."""
        for name, stream, number, copy in self._kept:
            now: Any = getattr(sys, name, None)
            for open_one in (now, stream):
                with contextlib.suppress(Exception):  # closed, or no stream at all
                    open_one.flush()
            if copy is not None and (now is not stream or stream.closed or not _same_file(number, copy)):
                setattr(sys, name, os.fdopen(os.dup(copy), "w", encoding=stream.encoding, errors=stream.errors))
            else:
                setattr(sys, name, stream)

    @contextlib.contextmanager
    def back(self) -> Iterator[None]:
        """Have them inside."""
        replaced = [(name, getattr(sys, name, None)) for name, *_ in self._kept]
        self.restore()
        try:
            yield
        finally:
            for name, stream in replaced:
                with contextlib.suppress(OSError, ValueError):
                    getattr(sys, name).flush()
                setattr(sys, name, stream)


def _copied(stream: Any, number: int) -> int | None:
    """Another descriptor of the same file, beyond those that programs close by the dozen; None for a stream that has none."""
    try:
        import fcntl

        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _HIGH) if stream.fileno() == number else None
    except (ImportError, OSError, ValueError):
        return None


def _same_file(number: int, copy: int) -> bool:
    try:
        return os.path.sameopenfile(number, copy)
    except OSError:
        return False


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
