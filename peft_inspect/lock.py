"""The lock: a small, sorted, readable file of what is built. PI002 compares it with what is built now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from peft_inspect.reading import read_text
from peft_inspect.records import AdapterLayerInfo, InspectionError, Locked, Structure, runs_of, text_of

FILE, SCHEMA = "peft-inspect.lock", 1


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
        for path in _folded([path.split(".") for path in sorted({layer.path for layer in layers})]):
            yield f"{path}: {what}"


def _folded(paths: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Sorted paths, those in one that differ in an index or in one name. The form of the file: another one is another schema."""
    below: dict[str, list[Sequence[str]]] = {}
    for first, *rest in paths:
        below.setdefault(first, []).append(rest)
    alike: dict[tuple[tuple[str, ...], bool, bool], list[str]] = {}
    for name, rests in below.items():
        inner = _folded([rest for rest in rests if rest])
        alike.setdefault((inner, [] in rests, name.isdecimal() and name == str(int(name))), []).append(name)
    lines: list[str] = []
    for (inner, ends, numbered), names in alike.items():
        if numbered:
            head = ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs_of(map(int, names)))
        else:
            head = names[0] if len(names) == 1 else "{" + ",".join(names) + "}"
        lines += [head] * ends
        lines += [f"{head}.{line}" for line in inner]
    return tuple(lines)


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
        data = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InspectionError(f"{path} is no lock file ({error.msg} in line {error.lineno}): {again}") from error
    except (InspectionError, ValueError, RecursionError) as error:
        raise InspectionError(f"{path} cannot be read ({text_of(error)}): {again}") from error
    if not isinstance(data, dict):
        raise InspectionError(f"{path} is no lock file: {again}")
    if data.get("schema") != SCHEMA:
        raise InspectionError(f"{path} was written for another version of peft-inspect: {again}")
    targets, versions = data.get("targets"), data.get("environment", {})
    if not isinstance(versions, dict) or not isinstance(targets, dict) or not all(isinstance(target, dict) for target in targets.values()):
        raise InspectionError(f"{path} is no lock file: {again}")
    return data
