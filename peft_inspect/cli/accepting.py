"""`--baseline` and `--write-baseline`: what is known already fails nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from peft_inspect.cli.output import Output
from peft_inspect.project.baseline import Baseline
from peft_inspect.records import Diagnosis, InspectionError

_D = TypeVar("_D", bound=Diagnosis)


@dataclass(frozen=True)
class Accepting:
    """Which file holds the accepted findings, and whether it is written first."""

    baseline: str | None = None
    write: str | None = None

    def known(self) -> Baseline:
        """What is accepted so far. Raises InspectionError for a file that is missing or no baseline."""
        if self.write is not None:
            return Baseline.read(self.write) if Path(self.write).is_file() else Baseline(self.write)
        return Baseline("") if self.baseline is None else Baseline.read(self.baseline)

    def of(self, reports: Mapping[str, _D], *, whole: bool = True) -> Mapping[str, _D]:
        """The reports without what is accepted, by target; written anew first where that was asked for.

        Raises InspectionError where the file cannot be written, or would be from less than all targets.
        """
        accepted = self.known()
        if self.write is not None:
            if not whole:
                raise InspectionError(f"{self.write} is not written, since not every target could be inspected")
            accepted = accepted.with_all_of(reports)
            Output.to(self.write).write(accepted.write)
            sys.stderr.write(f"peft-inspect: wrote {self.write}: {len(accepted.entries)} accepted\n")
        elif gone := accepted.gone(reports):
            sys.stderr.write(f"peft-inspect: {gone} accepted in {self.baseline} and found no more: --write-baseline takes them out\n")
        return {target: accepted.applied(target, report) for target, report in reports.items()}
