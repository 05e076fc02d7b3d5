"""The JSON report, schema 1: `report.schema.json` beside this file describes it.

Keys may be added, never renamed or removed within a schema number. Same input, same bytes, apart from `timings`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TextIO

from peft_inspect.environment import environment
from peft_inspect.formats.layout import layer_indices
from peft_inspect.formats.names import ranges, write_json
from peft_inspect.formats.totals import gradient_totals, parameter_totals
from peft_inspect.formats.wrappers import same_object
from peft_inspect.records import (
    AdapterInfo,
    AdapterLayerInfo,
    ConfigEntry,
    Coverage,
    Diagnosis,
    Finding,
    Outcome,
    ParameterInfo,
    Source,
    Structure,
    Trace,
)
from peft_inspect.version import __version__

SCHEMA = 1


def write(report: Diagnosis, out: TextIO) -> None:
    """One JSON object and a line break."""
    write_json(document(report, getattr(report, "timings", {})), out, allow_nan=False)


def document(diagnosis: Diagnosis, timings: Mapping[str, float]) -> dict[str, Any]:
    """The JSON object as plain values. What an inspection without a batch cannot know is null or left out."""
    structure, trace = diagnosis.structure, diagnosis.trace
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "tool": {"name": "peft-inspect", "version": __version__},
        "environment": environment(),
        "model": _model(diagnosis.source, structure),
        "adapters": [_adapter(adapter, structure) for adapter in structure.adapters],
        "layers": [_layer(layer, structure, trace) for layer in structure.adapter_layers],
        "coverage": [_coverage(coverage) for coverage in structure.coverage],
    }
    if trace is not None:
        found["gradients"] = _gradients(trace)
        found["batch"] = {"made_by": trace.batch.made_by, "inputs": _plain(trace.batch.inputs), "notes": list(trace.batch.notes)}
    if diagnosis.steps:
        found["steps"] = {"watched": len(diagnosis.steps), "for": list(diagnosis.steps)}
    found["findings"] = [_finding(finding) for finding in diagnosis.findings]
    if diagnosis.accepted:
        found["accepted"] = [_finding(finding) for finding in diagnosis.accepted]
    found["outcomes"] = [_outcome(outcome) for outcome in diagnosis.outcomes]
    found["notes"] = list(structure.notes)
    found["same_object"] = [{"path": short, "is": live} for short, live in same_object(structure)]
    found["timings"] = {name: round(seconds, 4) for name, seconds in timings.items()}
    return found


def _model(source: str, structure: Structure) -> dict[str, Any]:
    totals = parameter_totals(structure)
    return {
        "source": source,
        "class": structure.root_type,
        "base_class": structure.base_type,
        "weights": structure.weights,
        "mode": structure.mode,
        "parameters": {"total": totals.total, "trainable": totals.trainable, "adapter": totals.adapter},
    }


def _adapter(adapter: AdapterInfo, structure: Structure) -> dict[str, Any]:
    return {
        "name": adapter.name,
        "type": adapter.type,
        "active": adapter.active,
        "r": adapter.config.get("r"),
        "lora_alpha": adapter.config.get("lora_alpha"),
        "layers": sum(layer.adapter == adapter.name for layer in structure.adapter_layers),
        "inference_mode": adapter.inference_mode,
        "targets": [_target(target, structure) for target in adapter.targets],
        "parameters": {"total": adapter.parameters, "trainable": adapter.trainable},
    }


def _target(target: ConfigEntry, structure: Structure) -> dict[str, Any]:
    return {
        "entry": target.entry,
        "matched": len(target.matched),
        "by_tower": dict(target.by_tower),
        "layers": ranges(layer_indices(target.matched, structure), dash="-"),
        "field": target.field,
        "dropped": len(target.dropped),
        "missed": list(target.missed),
        "closest": list(target.closest),
    }


def _coverage(coverage: Coverage) -> dict[str, Any]:
    return {
        "tower": coverage.tower,
        "block": coverage.block,
        "layer": coverage.name,
        "kind": coverage.kind,
        "matched": len(coverage.adapted),
        "of": len(coverage.layers),
        "layers": ranges(coverage.indices, dash="-"),
        "parameters": {"total": coverage.parameters, "adapted": coverage.adapted_parameters},
        "adapters": [
            {"name": carried.adapter, "matched": carried.layers, "layers": ranges(carried.indices, dash="-"), "r": list(carried.ranks)}
            for carried in coverage.carried
        ],
    }


def _layer(layer: AdapterLayerInfo, structure: Structure, trace: Trace | None) -> dict[str, Any]:
    return {
        "path": layer.path,
        "adapter": layer.adapter,
        "r": layer.r,
        "lora_alpha": _number(layer.lora_alpha),
        "scaling": _number(layer.scaling),
        "base_layer": layer.base_type,
        "active": layer.active,
        "merged": layer.merged,
        "calls": None if trace is None else sum(call.phase == "forward" for call in trace.calls_of.get(layer.path, ())),
        "tuner": layer.tuner,
        "enabled": layer.enabled,
        "parameter_name": layer.parameter_name,
        "parameters": [_parameter(structure.parameter[path], trace) for path in layer.parameters],
    }


def _parameter(parameter: ParameterInfo, trace: Trace | None) -> dict[str, Any]:
    gradient = trace.gradient.get(parameter.path) if trace is not None else None
    return {
        "path": parameter.path,
        "shape": list(parameter.shape),
        "dtype": parameter.dtype,
        "requires_grad": parameter.requires_grad,
        "grad": gradient.state if gradient is not None else None,
        "norm": _number(gradient.norm) if gradient is not None else None,
    }


def _gradients(trace: Trace) -> dict[str, Any]:
    totals = gradient_totals(trace)
    return {
        "loss": _number(trace.loss.value),
        "lora": {
            "total": totals.total,
            "with_grad": totals.with_grad,
            "without_grad": totals.without_grad,
            "zero": totals.zero,
            "nonfinite": totals.nonfinite,
            "frozen": totals.frozen,
        },
        "other_trainable": {"total": totals.other, "with_grad": totals.other_with_grad},
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "rule": finding.rule,
        "severity": finding.severity.value,
        "message": finding.message,
        "modules": list(finding.modules),
        "source": _source(finding.source),
        "facts": _plain(finding.facts),
        "fix": finding.fix,
        "fix_verified": finding.fix_verified,
        "verified": finding.verified,
        "tried_in_step": finding.tried_in,
    }


def _source(source: Source | None) -> dict[str, Any] | None:
    return None if source is None else {"file": source.file, "line": source.line, "function": source.function, "code": source.code}


def _outcome(outcome: Outcome) -> dict[str, str]:
    return {"code": outcome.code, "rule": outcome.rule, "status": outcome.status, "why": outcome.why}


def _number(value: float | None) -> float | None:
    """JSON has no NaN and no infinity; a state or a finding tells of them."""
    return value if value is None or math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Facts as JSON values: sets in order, anything unknown by its name."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item) for item in value), key=str)
    return str(value)
