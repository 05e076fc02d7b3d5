"""Kernels that a config.json asks for. Some are packages, some are code on the hub, and an inspection needs none of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_KEY = re.compile(r"_?(attn|experts)_implementation(_internal)?")
_PART_OF_TRANSFORMERS = (None, "eager", "sdpa", "grouped_mm", "batched_mm")


def without_kernels(data: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The contents of a config.json without implementations that transformers does not bring itself, and a note on these."""
    dropped: list[str] = []
    kept = {key: _without(value, dropped) for key, value in data.items() if not _is_kernel(key, value, dropped)}
    names = ", ".join(dict.fromkeys(dropped))
    return kept, (f"the config asks for {names}; the model is inspected with transformers' own implementation",) if dropped else ()


def _without(value: Any, dropped: list[str]) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _without(inner, dropped) for key, inner in value.items() if not _is_kernel(key, inner, dropped)}


def _is_kernel(key: str, value: Any, dropped: list[str]) -> bool:
    if not _KEY.fullmatch(str(key)) or value in _PART_OF_TRANSFORMERS:
        return False
    dropped.append(str(value))
    return True
