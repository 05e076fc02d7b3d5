"""Layer dropout: the setting by which training leaves whole blocks of a list out, at random."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

_SETTING = re.compile(r".*(layer_?drop|drop_?(path|layer|block)|stochastic_?depth|skip_?prob).*", re.IGNORECASE)


def layer_drop(modules: Mapping[str, nn.Module], block: str) -> tuple[str, float] | None:
    """The setting above zero that leaves out a block of a list, and its value: of the modules around, in train mode, or of a config.

    The block itself may hold it, or its list, or what calls them. None for a module that is no block, and where there is none.
    """
    if not block.rpartition(".")[2].isdecimal() or not modules[block].training:
        return None
    path: str | None = block
    while path is not None:
        for held in (vars(modules[path]), getattr(getattr(modules[path], "config", None), "__dict__", {})):
            for name, value in held.items():
                if _SETTING.fullmatch(name) and (number := _number(value)) > 0:
                    return name, number
        path = path.rpartition(".")[0] if path else None
    return None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
