"""From Python frames to lines of code. Frames are walked only where something is wrong."""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import sys
import sysconfig
import textwrap
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING

import peft
import torch
from transformers.utils import HF_MODULES_CACHE

from peft_inspect.records import Source
from peft_inspect.walk import defined_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Folders as the import system spells them, which is how code names its file: a `Path` would drop the dot of `./`.
_OURS = __file__.removesuffix(str(Path("structure", "source", "lines.py")))
_EXAMPLES = _OURS + "rules" + os.sep  # programs as users write them
_TORCH = torch.__file__.removesuffix("__init__.py")  # with the separator: not torchvision
_PEFT = peft.__file__.removesuffix("__init__.py")
_DOORS = tuple(str(Path(path)) for path in ("/transformers/integrations/peft.py", "/diffusers/loaders/peft.py"))
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
_LIBRARIES = tuple({sysconfig.get_paths()[name] for name in ("purelib", "platlib")})

Line = tuple[CodeType, int]


def frames(frame: FrameType | None) -> Iterator[FrameType]:
    """This frame and its callers, innermost first, up to the run or the program that the tool started."""
    while frame is not None and frame.f_code not in _boundaries:
        yield frame
        frame = frame.f_back


_boundaries: set[CodeType] = set()


def boundary(function: Callable[..., object]) -> None:
    """Declare a function in which something of the user's starts: no frame beyond it belongs to the inspected program."""
    _boundaries.add(function.__code__)


def is_machinery(code: CodeType) -> bool:
    """Whether this code is torch, this tool's own, or the standard library: never where a fault lies."""
    file = code.co_filename
    if file.startswith((_TORCH, _OURS, "<frozen", "<eval_with_key>")):  # the last is what torch.fx generates
        return not file.startswith(_EXAMPLES)
    return file.startswith(_STANDARD_LIBRARY) and not file.startswith(_LIBRARIES)


def is_peft(code: CodeType) -> bool:
    """Whether this code is PEFT itself, or the methods of other libraries that stand for its own."""
    return code.co_filename.startswith(_PEFT) or code.co_filename.endswith(_DOORS)


def is_library(code: CodeType) -> bool:
    """Whether this code was installed, rather than written by the user."""
    return code.co_filename.startswith(_LIBRARIES) and not code.co_filename.startswith(_EXAMPLES)


def is_fetched(code: CodeType) -> bool:
    """Whether this code was installed, or came with a model from the hub: either way no file of the user's repository."""
    return is_library(code) or code.co_filename.startswith(HF_MODULES_CACHE)


def is_installed(kind: type) -> bool:
    """Whether a class comes from a library or from Python itself; classes without a file are the user's."""
    file = getattr(sys.modules.get(defined_in(kind)), "__file__", None) or ""
    return file.startswith((_STANDARD_LIBRARY, *_LIBRARIES, _OURS)) and not file.startswith(_EXAMPLES)


def nearest_line(depth: int = 1) -> Line | None:
    """The nearest line that is neither torch nor PEFT itself; `depth` frames up is where the search starts."""
    for frame in frames(sys._getframe(depth)):
        if not is_machinery(frame.f_code) and not is_peft(frame.f_code):
            return frame.f_code, frame.f_lineno
    return None


def line_above(frame: FrameType) -> Line | None:
    """The user's nearest line around `frame`; where there is none, a library's."""
    around = [above for above in frames(frame.f_back) if not is_machinery(above.f_code) and not is_peft(above.f_code)]
    users = [above for above in around if not is_library(above.f_code)]
    return next(((above.f_code, above.f_lineno) for above in users or around), None)


def source(line: Line | None) -> Source | None:
    """The record of a line; None for None."""
    if line is None:
        return None
    code, number = line
    text = linecache.getline(code.co_filename, number).strip()
    return Source(shown(code.co_filename), number, code.co_name, text, library=is_fetched(code))


def shown(file: str) -> str:
    """How a file is named in reports: from its package for libraries, else from the working directory where it lies below."""
    for library in _LIBRARIES:
        if file.startswith(library + os.sep):
            return Path(file).relative_to(library).as_posix()
    path = Path(file)
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else str(path)


@cache
def decorator_line(code: CodeType, names: tuple[str, ...]) -> Line:
    """The line of the decorator that mentions one of `names`, of the function with this code; its first line where none does.

    Healthy models ask too, at every call of what is decorated: only the function's own lines are parsed, and once.
    """
    first = code.co_firstlineno
    try:
        lines, _ = inspect.getsourcelines(code)
        (function,) = ast.parse(textwrap.dedent("".join(lines))).body
    except (OSError, SyntaxError, ValueError):  # code that has no file, or starts in the middle of a statement
        return code, first
    for decorator in getattr(function, "decorator_list", ()):
        if any(name in ast.unparse(decorator) for name in names):
            return code, first + decorator.lineno - 1
    return code, first
