"""Inputs of the user's own forwards under the names that transformers gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SOUND = re.compile(
    r"^(input_)?(raw_)?(audios?|waveforms?|wavs?|speech|sound|mels?|spectrograms?|features|audio_(values|features|inputs?))$"
)
_MAIN = re.compile(r"^(x|inputs?|data|samples?)$")
_SPELLINGS = {
    "input_ids": re.compile(r"^((input_)?(ids|tokens)|token_ids|text(_input)?_ids|text_tokens|text)$"),
    "attention_mask": re.compile(r"^((attn|input|text|token|padding)_)?mask$"),
    "pixel_values": re.compile(r"^(images?|imgs?|pixels|image_values|frames)$"),
    "labels": re.compile(r"^(\w+_)?(labels?|targets?)$|^y$"),
}


def canonical(names: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, str]:
    """Canonical name → the user's name, for every input of a forward.

    Args:
        names: parameters of the user's forward.
        known: parameters of the transformers model inside, which tell what sound and plain `x` stand for.
    """
    meaning: dict[str, str] = {}
    for name in names:
        meaning.setdefault(name if name in known else _meaning(name, known), name)
    rest = set(names) - set(meaning.values())
    return {**meaning, **{name: name for name in rest}}


def _meaning(name: str, known: Mapping[str, Any]) -> str:
    for meaning, spelling in _SPELLINGS.items():
        if spelling.match(name):
            return meaning
    sound = next((main for main in ("input_features", "input_values") if main in known), None)
    if sound is not None and _SOUND.match(name):
        return sound
    if _MAIN.match(name):
        return next((main for main in ("input_ids", "pixel_values", "input_features", "input_values") if main in known), name)
    return name
