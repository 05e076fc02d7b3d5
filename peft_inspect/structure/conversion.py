"""How PEFT rewrites a config for models whose experts transformers 5 fused into parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from peft_inspect.internals import find


def fused_names(config: object) -> Mapping[str, str]:
    """Old layer name → name of the fused expert parameter, for model types whose configs PEFT rewrites; else empty.

    PEFT keeps the tables private; where they move, nothing is known to be rewritten.
    """
    patterns, targets = find("conversion_patterns"), find("fused_targets")
    if patterns is None or targets is None or not isinstance(config, PretrainedConfig):
        return {}
    names: Mapping[str, str] = targets.get(patterns.get(config.model_type), {})
    return names


def was_converted(adapter: Mapping[str, Any], fused: Mapping[str, str]) -> bool:
    """Whether an adapter's config carries a mark of the rewriting: fused names as PEFT writes them, without any path."""
    return any(name in fused.values() for name in adapter.get("target_parameters") or ())


def is_rewritten_key(key: str, fused: Mapping[str, str]) -> bool:
    """Whether a key of `rank_pattern` or `alpha_pattern` is one that PEFT added."""
    return any(key == rf".*\.{re.escape(name)}" for name in fused.values())
