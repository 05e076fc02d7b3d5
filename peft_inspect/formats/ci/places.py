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
_WORKSPACE = "GITHUB_WORKSPACE"  # where GitHub checked the repository out


@dataclass(frozen=True)
class Place:
    """A file by its path as it is shown, and a line where there is one."""

    file: str
    line: int | None = None
    code: str | None = None

    @property
    def uri(self) -> str:
        """Relative where the file is shown so; never empty."""
        path = PurePath(self.file)
        return path.as_uri() if path.is_absolute() else urllib.parse.quote(path.as_posix(), errors="replace")


def place_of(finding: Finding, report: Diagnosis) -> Place:
    """The user's own line, else the file that was inspected, else a file of the project, else the model's name."""
    if finding.source is not None and not finding.source.library:
        return _at(finding.source)
    structure = report.structure
    if structure.entry is not None and structure.entry.file == structure.source_file:
        return _at(structure.entry)
    if structure.source_file:
        return Place(_shown(structure.source_file))
    script = report.source.partition(":")[0]
    words = report.source.split()  # the command line of a program that was run
    known = next((name for name in (script, *words[:1], *_PROJECT_FILES) if Path(name).is_file()), None)
    return Place(_shown(known) if known else report.source.replace(":", "/").strip("/") or "model")


def _at(source: Source) -> Place:
    return Place(_shown(source.file), max(source.line, 1), source.code)


def fingerprint(finding: Finding, report: Diagnosis) -> str:
    """The same for the same fault in the next commit: it knows the code, the modules and the text of the line, not its number."""
    place = place_of(finding, report)
    parts = (finding.code, report.source, *sorted(finding.modules), place.file, (place.code or "").strip())
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]


def _shown(file: str) -> str:
    """As the repository has it: from the workspace of a GitHub job, else from the working directory, where it lies below."""
    path, root = Path(os.path.normpath(Path.cwd() / file)), _root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _root() -> Path:
    """A step may work in a folder below the workspace; annotations and code scanning count from the workspace all the same."""
    here, workspace = Path.cwd(), os.environ.get(_WORKSPACE)
    root = Path(workspace).resolve() if workspace else here
    return root if here.is_relative_to(root) else here
