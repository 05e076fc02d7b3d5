"""What `check --suggest FOLDER` writes: an adapter that PEFT loads, with its config."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from peft_inspect.inspection import Report
from peft_inspect.records import InspectionError
from peft_inspect.suggest import corrected

CONFIG = "adapter_config.json"


def is_folder(suggest: str) -> bool:
    """Whether a folder was named: one that is there, or a path without an ending."""
    return Path(suggest).is_dir() or suggest.endswith("/") or not Path(suggest).suffix


def write(reports: Iterable[Report], folder: Path) -> str:
    """Write the converted adapter of the one report; what was written, in a line.

    Raises:
        InspectionError: there are several reports, no adapter file, or nothing to convert.
    """
    from peft_inspect.load.adapter.convert import write_converted

    report, *others = reports
    found = next(((finding, finding.conversion) for finding in report.findings if finding.conversion), None)
    if others or not report.adapter_files:
        raise InspectionError(f"--suggest {folder} is a folder, for one converted adapter: name one as MODEL, or a file for a LoRA config")
    file, adapters = report.adapter_files[0], sorted(report.structure.adapters, key=lambda adapter: not adapter.active)
    config = corrected(adapters[0].config if adapters else file.config, report.findings)
    if found is None and config == (adapters[0].config if adapters else file.config):
        raise InspectionError(f"--suggest {folder}: nothing that was found of {file.path} can be fixed by renaming or by its config")
    if not config.get("base_model_name_or_path"):  # a model that was built from a config alone does not know where it lies
        config["base_model_name_or_path"] = file.config.get("base_model_name_or_path")
    folder.mkdir(parents=True, exist_ok=True)
    if found is not None:
        write_converted(file.path, found[1], config, folder)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return f"wrote {folder}: {CONFIG}" + ("" if found is None else f", and {len(found[1].keys)} tensors under the names that PEFT loads")
