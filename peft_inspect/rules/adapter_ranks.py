"""The rank that an adapter file was trained with, as a config has to say it."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from peft_inspect.records import AdapterFile, AdapterLayerInfo
from peft_inspect.rules.adapter_match import Match, loaded

_MOST = 8  # entries of a rank_pattern that is still a suggestion


def fields_of_rank(fit: Match, file: AdapterFile) -> Mapping[str, Any]:
    """`r`, or `rank_pattern` where other layers have the rank of the model; empty where the shapes tell of no rank."""
    layers = {layer.path: layer for layer in file.structure.adapter_layers} if file.structure else {}
    ranks = {file.layer_of[loaded(mismatch.tensor)]: mismatch.ranks for mismatch in fit.mismatched}
    known = {path: pair for path, pair in ranks.items() if path in layers and pair is not None}
    if len(known) < len(ranks):
        return {}
    if not fit.placed:
        return _of_all(set(known.values()), file)
    if any(layers[path].r != wanted for path, (_, wanted) in known.items()):
        return {}  # PEFT makes one rank of those of many experts
    pattern = _pattern({path: found for path, (found, _) in known.items()}, layers)
    return {"rank_pattern": pattern} if len(pattern) <= _MOST else {}


def _of_all(pairs: set[tuple[int, int]], file: AdapterFile) -> Mapping[str, Any]:
    """The rank of a file none of whose tensors fits. What PEFT makes of it for fused experts keeps the proportion."""
    config = next((adapter.config for adapter in file.structure.adapters if adapter.name == file.adapter), None) if file.structure else None
    asked = (config or file.config).get("r")
    proportions = {Fraction(found, wanted) for found, wanted in pairs}
    if len(proportions) != 1 or not isinstance(asked, int):
        return {}
    rank = proportions.pop() * asked
    return {"r": int(rank)} if rank.denominator == 1 else {}


def _pattern(found: Mapping[str, int], layers: Mapping[str, AdapterLayerInfo]) -> dict[str, int]:
    """By the last name where all layers of that name have one other rank, else by the whole path."""
    pattern = {}
    for path, rank in found.items():
        leaf = path.rpartition(".")[2]
        alike = all(found.get(other) == rank for other in layers if other.rpartition(".")[2] == leaf)
        pattern[leaf if alike else layers[path].name] = rank
    return pattern
