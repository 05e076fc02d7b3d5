"""What a person asked to see, and what they see it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from peft_inspect.records import Diagnosis

Column = Literal["params", "memory", "dtype", "shape", "device", "rank", "adapters", "output", "macs", "path"]
MEASURED: frozenset[Column] = frozenset({"output", "macs"})  # one batch has to run for them
COLUMNS: tuple[Column, ...] = get_args(Column)


@dataclass(frozen=True)
class View:
    """How the drawn formats draw. Machine formats do not look at it."""

    command: Literal["tree", "gradcheck", "check"] = "check"
    depth: int | None = None  # levels of the module tree below the root
    match: str | None = None  # a glob on module paths: these, and the way to them
    expand: bool = False  # repeated blocks one by one, adapter layers with what is inside them
    exact: bool = False  # numbers to the last digit
    targets: bool = False  # the target table
    tables: bool = True  # what the config reached, in check
    norms: bool = False  # the gradient norm of every adapter parameter
    other: Diagnosis | None = None  # a second model, shown as a difference in one tree
    other_name: str = ""  # what the person called it
    columns: tuple[Column, ...] = ("params",)
    ascii: bool = False  # 7-bit characters only
    verbosity: int = 0  # 1: also what was skipped and what only its author asks about; -1: counts, findings in a line each, the answer
    width: int | None = None  # columns of the screen; None: that of the terminal, unlimited in a pipe
    color: bool | None = None  # None: when the output is a terminal and NO_COLOR is not set
