"""Where a report goes: stdout, or a file that is complete or not there."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from peft_inspect.cli.streams import silence
from peft_inspect.records import InspectionError
from peft_inspect.reversible import uncollected


@dataclass(frozen=True)
class Output:
    """A file, or stdout when there is none."""

    file: Path | None = None

    @classmethod
    def to(cls, name: str | None) -> Output:
        """Where `-o` points to; stdout for none and for `-`. Raises InspectionError when it cannot be written."""
        if name is None or name == "-":
            return cls()
        path = Path(name).resolve()
        if path.is_dir():
            raise InspectionError(f"cannot write the report to {name}: it is a folder")
        if not path.parent.is_dir():
            raise InspectionError(f"cannot write the report to {name}: there is no folder {path.parent}")
        return cls(path)

    def write(self, report: Callable[[TextIO], None]) -> None:
        """Have the report written. A file appears all at once: nobody reads half of it."""
        with uncollected():  # or drawing would have Python look for garbage in all of torch, which takes longer than to draw
            self._write(report)

    def _write(self, report: Callable[[TextIO], None]) -> None:
        if self.file is None:
            _write_stdout(report)
            return
        try:
            if self.file.exists() and not self.file.is_file():  # a device or a pipe cannot be replaced
                with self.file.open("w", encoding="utf-8") as out:
                    report(out)
            else:
                _write_atomically(self.file, report)
        except OSError as error:
            raise InspectionError(f"cannot write the report to {self.file}: {error.strerror or error}") from error


def _write_atomically(file: Path, report: Callable[[TextIO], None]) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".part", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            report(out)
        Path(name).chmod(file.stat().st_mode & 0o777 if file.exists() else 0o666 & ~_umask())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_stdout(report: Callable[[TextIO], None]) -> None:
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is spelled out
    try:
        report(sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough; the verdict is still in the exit code
        silence(sys.stdout)
    except OSError as error:
        silence(sys.stdout)  # or Python tries the rest once more as it ends
        raise InspectionError(f"cannot write the report to stdout: {error.strerror or error}") from error


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """What the inspected code prints goes to stderr, from Python or from below: stdout is the report's alone."""
    sys.stdout.flush()
    try:
        number = sys.stdout.fileno()
        kept = os.dup(number)
    except (OSError, ValueError):  # a stdout without a descriptor, as in notebooks and tests
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    try:
        sys.stderr.flush()
        os.dup2(2, number)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(OSError):  # the code that ran may have closed whatever was open
            os.dup2(kept, number)
            os.close(kept)
