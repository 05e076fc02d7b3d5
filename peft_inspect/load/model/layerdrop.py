"""LayerDrop off: a layer that training skips at random would be reported, at random, as a layer that did not run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peft_inspect.load.model.config_tree import parts

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def without_layerdrop(config: PretrainedConfig, asked: Mapping[str, Any]) -> tuple[str, ...]:
    """Set every LayerDrop probability of a config to zero, in place, but for those the user `asked` for; the note on it."""
    changed = []
    for _, part in parts(config):
        for field, value in list(vars(part).items()):
            if "layerdrop" in field and isinstance(value, float) and value > 0 and not any(name.endswith(field) for name in asked):
                setattr(part, field, 0.0)
                changed.append(f"{field} {value} → 0")
    return (f"every layer runs: {', '.join(dict.fromkeys(changed))}",) if changed else ()
