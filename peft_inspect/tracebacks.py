"""Tracebacks as the user's own program would show them, without the frames of this tool."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_LIBRARIES = tuple({*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")), "<"})
_OURS = (str(Path(__file__).parent), "<frozen importlib", "<frozen runpy")


def trim(error: BaseException) -> None:
    """Take the frames of this tool out of its traceback, and of those of the exceptions behind it."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        behind = pending.pop()
        if behind is not None and id(behind) not in seen:
            seen.add(id(behind))
            behind.__traceback__ = _without_ours(behind.__traceback__)
            pending += [behind.__cause__, behind.__context__]


def of_the_user(error: BaseException) -> str:
    """Its trimmed traceback as text, under a line that says whose it is."""
    trim(error)
    return "this is the traceback of your code:\n" + "".join(traceback.format_exception(error)).rstrip()


def raised_by_the_user(error: BaseException) -> bool:
    """Whether the line that raised it is neither of this tool nor of an installed library."""
    frames = [entry.tb_frame.f_code.co_filename for entry in _entries(error.__traceback__)]
    return bool(frames) and not frames[-1].startswith((*_OURS, *_LIBRARIES))


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    kept = [entry for entry in _entries(trace) if not entry.tb_frame.f_code.co_filename.startswith(_OURS)]
    following = None
    for entry in reversed(kept):
        following = TracebackType(following, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return following


def _entries(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next
