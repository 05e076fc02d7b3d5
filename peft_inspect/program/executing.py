"""Running the prepared program to its end, whichever that is; what is shown of its exceptions is what Python shows."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from peft_inspect.program.launch import Prepared
from peft_inspect.tracebacks import trim


class Stopped(SystemExit):
    """Ends the program once its report is made, past every `except Exception`; threads and event loops know what it means."""


@dataclass(frozen=True)
class Ended:
    """How the program ended."""

    how: Literal["returned", "exited", "raised", "interrupted", "stopped"]
    code: int = 0  # what the process would have ended with


def execute(prepared: Prepared) -> Ended:
    """Run the program. An exception that it does not handle is shown by its own `sys.excepthook`, without frames of this tool."""
    try:
        start(prepared)
    except Stopped:
        return Ended("stopped")
    except SystemExit as left:
        return Ended("exited", _exit_code(left))
    except BaseException as error:
        trim(error)
        sys.excepthook(type(error), error, error.__traceback__)
        return Ended("interrupted", 130) if isinstance(error, KeyboardInterrupt) else Ended("raised", 1)
    return Ended("returned")


def start(prepared: Prepared) -> None:
    """The frame below which everything is the program's."""
    exec(prepared.code, vars(prepared.main))  # noqa: S102  # to run it is what the user asks for


def _exit_code(left: SystemExit) -> int:
    if left.code is None or isinstance(left.code, int):
        return left.code or 0
    sys.stderr.write(f"{left.code}\n")
    return 1
