"""What every record may name: severities, a line of code, and the one error that a user can fix."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

Weights = Literal["none", "random", "pretrained", "user"]
Mode = Literal["train", "eval", "mixed"]


class Severity(str, enum.Enum):
    """How much a finding matters, most severe first."""

    ERROR = "error"  # training or loading does not do what was asked
    WARNING = "warning"  # probably not what was meant
    NOTE = "note"  # worth seeing

    @property
    def rank(self) -> int:
        """0 for the most severe."""
        return list(Severity).index(self)

    def __str__(self) -> str:
        return self.value


class InspectionError(Exception):
    """The one error a user can fix: what was tried, what was found, what to do.

    `detail` is shown under the message as it stands: the user's own traceback, for instance.
    """

    def __init__(self, message: str, *, detail: str | None = None) -> None:
        super().__init__(message)
        self.detail = detail


def text_of(error: BaseException) -> str:
    """What an error of anybody's says, with its class: `ValueError: no such rank`. An error may fail to say anything."""
    try:
        said = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # it may as well end the program
        said = "(its message cannot be read)"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@dataclass(frozen=True)
class Source:
    """A line of code: the frame nearest to the fault that is neither torch nor PEFT itself."""

    file: str
    line: int
    function: str
    code: str
    library: bool = False  # installed, so no file of the user's repository

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"
