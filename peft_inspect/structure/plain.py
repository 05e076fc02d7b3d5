"""Configs as plain JSON values."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Any

import torch


def plain(value: Any) -> Any:
    """`value` with nothing but None, booleans, numbers, strings, lists and dictionaries in it; sets are sorted."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return plain(value.to_dict()) if hasattr(value, "to_dict") else str(value)


def config_values(config: object) -> dict[str, Any]:
    """The fields of a model or PEFT config as plain values; empty for an object that cannot list them."""
    if isinstance(config, Mapping):
        return {str(key): plain(value) for key, value in config.items()}
    if not hasattr(config, "to_dict"):
        return {}
    try:
        return {str(key): plain(value) for key, value in config.to_dict().items()}
    except Exception:  # a config class of the user's own; what it cannot tell is not needed to inspect the model
        return {}


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")
