"""Accepted findings: a file of those that are known, so that only new ones fail.

An entry is known by its target, its rule, its modules and the text of its line, not by the line's number or the message's
figures: it stays accepted when code above it moves, and is a new one when more layers have the fault.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, TextIO, TypeVar

from peft_inspect.formats.names import fold
from peft_inspect.reading import read_text
from peft_inspect.records import Diagnosis, Finding, InspectionError, Outcome

SCHEMA = 1
_D = TypeVar("_D", bound=Diagnosis)


@dataclass(frozen=True)
class Baseline:
    """The entries of a file, each with its target, what it says for a reader, and the `id` it is known by."""

    name: str
    entries: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def read(cls, name: str) -> Baseline:
        """The file called `name`.

        Raises:
            InspectionError: it is missing or no such file.
        """
        again = f"write it with --write-baseline {name}"
        if not Path(name).is_file():
            raise InspectionError(f"there is no baseline {name}: {again}")
        try:
            data = json.loads(read_text(Path(name)))
            entries = tuple({"target": str(entry["target"]), "id": str(entry["id"]), **entry} for entry in data["accepted"])
        except (ValueError, RecursionError, TypeError, KeyError) as error:
            raise InspectionError(f"{name} is no baseline: {again}") from error
        if data.get("schema") != SCHEMA:
            raise InspectionError(f"{name} was written for another version of peft-inspect: {again}")
        return cls(name, entries)

    def with_all_of(self, reports: Mapping[str, Diagnosis]) -> Baseline:
        """All findings of these reports accepted, in the place of what was accepted of these targets before."""
        others = (entry for entry in self.entries if entry["target"] not in reports)
        found = (_entry(target, finding) for target, report in reports.items() for finding in (*report.findings, *report.accepted))
        return replace(self, entries=tuple(sorted((*others, *found), key=lambda entry: (entry["target"], entry["code"], entry["id"]))))

    def applied(self, target: str, report: _D) -> _D:
        """The report with what is accepted of its target taken out of its findings; a rule that found nothing else is ignored."""
        known = {entry["id"] for entry in self.entries if entry["target"] == target}
        accepted = tuple(finding for finding in report.findings if _id(target, finding) in known)
        left = tuple(finding for finding in report.findings if finding not in accepted)
        gone = {finding.code for finding in accepted} - {finding.code for finding in left}
        outcomes = tuple(self._outcome(outcome) if outcome.code in gone else outcome for outcome in report.outcomes)
        return replace(report, findings=left, accepted=(*report.accepted, *accepted), outcomes=outcomes)

    def gone(self, reports: Mapping[str, Diagnosis]) -> int:
        """How many entries of these targets are found no more."""
        found = {_id(target, finding) for target, report in reports.items() for finding in (*report.findings, *report.accepted)}
        return sum(entry["target"] in reports and entry["id"] not in found for entry in self.entries)

    def write(self, out: TextIO) -> None:
        """Write the file: JSON, which every tool can read and diff."""
        json.dump({"schema": SCHEMA, "accepted": list(self.entries)}, out, indent=2)
        out.write("\n")

    def _outcome(self, outcome: Outcome) -> Outcome:
        return replace(outcome, status="ignored", why=f"accepted in {self.name}")


def _entry(target: str, finding: Finding) -> Mapping[str, Any]:
    line = None if finding.source is None else f"{PurePath(finding.source.file).name}: {finding.source.code.strip()}"
    said = {"target": target, "code": finding.code, "rule": finding.rule, "message": finding.message, "line": line}
    return {**said, "modules": list(fold(finding.modules)), "id": _id(target, finding)}


def _id(target: str, finding: Finding) -> str:
    """By the text of the line and the modules; where there is neither, by what is said."""
    where: Iterable[str] = sorted(finding.modules)
    if finding.source is not None:
        where = (*where, PurePath(finding.source.file).name, finding.source.code.strip())
    parts = (target, finding.code, *(where or (finding.message,)))
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]
