"""Where a finding is shown in a file view: a line of the user's own code, else the config or script it is about.

Code scanning and annotations want a file of the repository; a line inside an installed library is none, and is told beside it.
"""

from __future__ import annotations

import hashlib
import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path, PurePath

from peft_inspect.records import Diagnosis, Finding, Source

_PROJECT_FILES = ("peft-inspect.toml", "pyproject.toml", "README.md")
_LIBRARIES = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True)
class Place:
    """A file by its path as it is shown, and a line where there is one."""

    file: str
    line: int | None = None
    code: str | None = None

    @property
    def uri(self) -> str:
        """Relative to the working directory where the file is below it; never empty."""
        path = PurePath(self.file)
        return path.as_uri() if path.is_absolute() else urllib.parse.quote(path.as_posix(), errors="replace")


def place_of(finding: Finding, report: Diagnosis) -> Place:
    """The user's own line, else the file that was inspected, else a file of the project, else the model's name."""
    if finding.source is not None and not in_library(finding.source):
        return Place(_shown(finding.source.file), max(finding.source.line, 1), finding.source.code)
    if report.structure.source_file:
        return Place(_shown(report.structure.source_file))
    script = report.source.partition(":")[0]
    known = next((name for name in (script, *_PROJECT_FILES) if Path(name).is_file()), None)
    return Place(_shown(known) if known else report.source.replace(":", "/").strip("/") or "model")


def in_library(source: Source) -> bool:
    """Whether a line belongs to an installed package or to Python itself."""
    parts = PurePath(source.file).parts
    return not _LIBRARIES.isdisjoint(parts) or _below(source.file, os.path.dirname(os.__file__))  # noqa: PTH120  # a str is wanted


def fingerprint(finding: Finding, report: Diagnosis) -> str:
    """The same for the same fault in the next commit: it knows the code, the modules and the text of the line, not its number."""
    place = place_of(finding, report)
    parts = (finding.code, report.source, *sorted(finding.modules), place.file, (place.code or "").strip())
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]


def _shown(file: str) -> str:
    """Relative to the working directory if it is below it."""
    path = Path(file)
    here = Path.cwd()
    if path.is_absolute():
        return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)
    return PurePath(os.path.normpath(file)).as_posix()


def _below(file: str, folder: str) -> bool:
    return PurePath(file).is_relative_to(folder)
