"""The lock: a small, sorted, readable file of what is built, and what is different from it now.

It fails a check when an upgrade of a library or a changed config moves, renames or loses adapter layers. Versions alone fail nothing;
they are told beside what they changed.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeVar

from peft_inspect.diagnose import OWN
from peft_inspect.expectations import with_findings
from peft_inspect.formats.names import fold
from peft_inspect.records import AdapterLayerInfo, Diagnosis, Finding, InspectionError, Severity, Structure

D = TypeVar("D", bound=Diagnosis)
FILE, SCHEMA = "peft-inspect.lock", 1
CODE = "PI002"
HELP = """What is built is not what the lock file says.

An upgrade of transformers or peft, or a changed config, moved, renamed or lost adapter layers, or changed
their rank. Adapters that were trained before may load into nothing. If the change is meant, write the lock
again with `peft-inspect lock`."""

Locked = Mapping[str, Any]  # one target: class, base class, parameters, adapter → lines


def locked(structure: Structure) -> Locked:
    """What is built, as the lock holds it: plain values, sorted, module paths folded."""
    trainable = sum(parameter.numel for parameter in structure.parameters if parameter.requires_grad)
    return {
        "class": structure.root_type,
        "base_class": structure.base_type,
        "parameters": sum(parameter.numel for parameter in structure.parameters),
        "trainable": trainable,
        "adapters": {
            adapter.name: {
                "type": adapter.type,
                "layers": sum(layer.adapter == adapter.name for layer in structure.adapter_layers),
                "modules": sorted(_lines(structure, adapter.name)),
            }
            for adapter in sorted(structure.adapters, key=lambda adapter: adapter.name)
        },
    }


def _lines(structure: Structure, adapter: str) -> Iterator[str]:
    """`layers.0-31.self_attn.{q_proj,v_proj}: Linear, r=8, alpha=16`."""
    alike: dict[str, list[AdapterLayerInfo]] = {}
    for layer in structure.adapter_layers:
        if layer.adapter == adapter:
            numbers = {"r": layer.r, "alpha": layer.lora_alpha, "parameter": layer.parameter_name}
            told = [
                layer.base_type,
                *(
                    f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                    for name, value in numbers.items()
                    if value is not None
                ),
            ]
            alike.setdefault(", ".join(told), []).append(layer)
    for what, layers in alike.items():
        # sorted: in which order a library registers its modules is no business of the lock
        for path in fold(sorted(layer.path for layer in layers), dash="-"):
            yield f"{path}: {what}"


def write_lock(targets: Mapping[str, Locked], environment: Mapping[str, str], out: TextIO) -> None:
    """Write the file: JSON, which every tool can read and diff, with one group of module paths per line."""
    json.dump({"schema": SCHEMA, "environment": dict(environment), "targets": dict(sorted(targets.items()))}, out, indent=2)
    out.write("\n")


def read_lock(path: Path) -> Mapping[str, Any]:
    """The content of a lock file.

    Raises:
        InspectionError: it cannot be read, is no lock, or of another schema.
    """
    again = "write it again with `peft-inspect lock`"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InspectionError(f"{path} is no lock file ({error.msg} in line {error.lineno}): {again}") from error
    except (UnicodeDecodeError, OSError) as error:
        raise InspectionError(f"{path} cannot be read ({error}): {again}") from error
    if not isinstance(data, dict):
        raise InspectionError(f"{path} is no lock file: {again}")
    if data.get("schema") != SCHEMA:
        raise InspectionError(f"{path} was written for another version of peft-inspect: {again}")
    targets, versions = data.get("targets"), data.get("environment", {})
    if not isinstance(versions, dict) or not isinstance(targets, dict) or not all(isinstance(target, dict) for target in targets.values()):
        raise InspectionError(f"{path} is no lock file: {again}")
    return data


def with_lock(report: D, target: str, lock: Mapping[str, Any], environment: Mapping[str, str], ignore: Mapping[str, str]) -> D:
    """The report with a finding if `target` is not what the lock says."""
    return with_findings(report, CODE, HELP, tuple(_changed(report.structure, target, lock, environment)), ignore)


def _changed(structure: Structure, target: str, lock: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[Finding]:
    then, now = lock["targets"].get(target), locked(structure)
    if then is None:
        yield _finding(f"{target} is not in the lock file", {}, "add it with `peft-inspect lock`")
    elif then != now:
        lines = _difference(then, now)
        upgrades = [
            f"{name} {lock.get('environment', {}).get(name)} → {version}"
            for name, version in environment.items()
            if lock.get("environment", {}).get(name) not in (None, version)
        ]
        since = f" (since then: {', '.join(upgrades)})" if upgrades else ""
        yield _finding(
            f"what is built differs from the lock file{since}:\n" + "\n".join(lines),
            {"difference": lines, "upgrades": upgrades},
            "load adapters trained before with `--adapter` to see whether they still fit; if the change is meant, run `peft-inspect lock`",
        )


def _difference(then: Locked, now: Locked) -> list[str]:
    """Removed lines with -, added ones with +, each as it stands in the file."""
    before, after = (json.dumps(value, indent=1).splitlines() for value in (then, now))
    changed = [line for line in difflib.ndiff(before, after) if line[:2] in ("- ", "+ ")]
    return [f"{line[0]} {line[2:].strip().rstrip(',')}" for line in changed]


def _finding(message: str, facts: Mapping[str, Any], fix: str) -> Finding:
    return Finding(CODE, OWN[CODE], Severity.ERROR, message, facts=facts, fix=fix)
