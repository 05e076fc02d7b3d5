"""How PEFT rewrites a config for models whose experts transformers 5 fused into parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig


def fused_names(config: object) -> Mapping[str, str]:
    """Old layer name → name of the fused expert parameter, for model types whose configs PEFT rewrites; else empty.

    PEFT keeps the table private; where it moves, nothing is known to be rewritten.
    """
    try:
        from peft.utils import transformers_weight_conversion as conversion

        pattern = conversion._MODEL_TO_CONVERSION_PATTERN.get(getattr(config, "model_type", None))
        names: Mapping[str, str] = conversion._MOE_TARGET_MODULE_MAPPING.get(pattern, {})
    except (ImportError, AttributeError):
        return {}
    return names if isinstance(config, PreTrainedConfig) else {}


def was_converted(adapter: Mapping[str, Any], fused: Mapping[str, str]) -> bool:
    """Whether an adapter's config carries a mark of the rewriting: fused names as PEFT writes them, without any path."""
    return any(name in fused.values() for name in adapter.get("target_parameters") or ())


def is_rewritten_key(key: str, fused: Mapping[str, str]) -> bool:
    """Whether a key of `rank_pattern` or `alpha_pattern` is one that PEFT added."""
    return any(key == rf".*\.{re.escape(name)}" for name in fused.values())
