"""The LoRA config that the findings suggest, as PEFT's own JSON: what `--suggest` writes."""

from __future__ import annotations

import json
from typing import TextIO

from peft_inspect.records import Diagnosis, InspectionError
from peft_inspect.suggest import corrected


def write(report: Diagnosis, out: TextIO) -> None:
    """The config of the active adapter, with everything that the findings suggest.

    Raises:
        InspectionError: there is no adapter whose config could be corrected.
    """
    adapters = sorted(report.structure.adapters, key=lambda adapter: not adapter.active)
    if not adapters:
        raise InspectionError("there is no LoRA config to correct: the model has no adapter. Name one with --lora or --target-modules")
    json.dump(corrected(adapters[0].config, report.findings), out, indent=2, sort_keys=True)
    out.write("\n")
