"""The LoRA config that the findings suggest, as PEFT's own JSON: what `--suggest` writes."""

from __future__ import annotations

from typing import Any, TextIO

from peft_inspect.formats.names import write_json
from peft_inspect.path_patterns import shortened
from peft_inspect.records import AdapterInfo, Diagnosis, InspectionError, Structure
from peft_inspect.suggest import corrected


def write(report: Diagnosis, out: TextIO) -> None:
    """The config of the active adapter, with everything that the findings suggest.

    Raises:
        InspectionError: there is no adapter whose config could be corrected.
    """
    adapters = sorted(report.structure.adapters, key=lambda adapter: not adapter.active)
    if not adapters:
        raise InspectionError("there is no LoRA config to correct: the model has no adapter. Name one with --lora or --target-modules")
    write_json(_short(corrected(adapters[0].config, report.findings), adapters[0], report.structure), out, sort_keys=True)


def _short(config: dict[str, Any], adapter: AdapterInfo, structure: Structure) -> dict[str, Any]:
    """PEFT spells `all-linear` out as whole paths where names would not do, which binds a config to one depth."""
    asked = config.get("target_modules")
    if not isinstance(asked, list) or not any(any(part.isdigit() for part in entry.split(".")) for entry in asked):
        return config
    inside = f"{adapter.base}." if adapter.base else ""
    layers = {layer.path for layer in structure.adapter_layers}
    bare = (module.path for module in structure.modules if module.path.startswith(inside) and not _within(module.path, layers))
    names = [path.removeprefix(inside) for path in bare]
    reached = [name for name in names if any(name == entry or name.endswith(f".{entry}") for entry in asked)]
    return {**config, "target_modules": shortened(reached, names)} if reached else config


def _within(path: str, layers: set[str]) -> bool:
    parts = path.split(".")
    return any(".".join(parts[:end]) in layers for end in range(1, len(parts)))
