"""Tensors for raw parameters of experts, and the `target_parameters` under which they would have a place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from peft_inspect.records import AdapterFile, ParameterInfo, TensorInfo
from peft_inspect.rules.adapter_match import adapter_paths, loaded

_KEY = re.compile(r"(?P<path>.+?)(?P<inner>(?:\.base_layer)*)\.lora_(?P<side>[AB])(?:\.\w+)?\.weight")
_PAIR = 2


@dataclass(frozen=True)
class LostExperts:
    """Tensors of such layers, the modules that hold the parameters, and the fields of the config that give them adapters."""

    keys: tuple[str, ...]
    modules: tuple[str, ...]
    suggestion: Mapping[str, Any]


def lost_experts(tensors: Iterable[TensorInfo], file: AdapterFile) -> LostExperts | None:
    """What the unplaced tensors of experts need; None where there are none, or where they fit no parameter."""
    raw = _raw_parameters(file)
    pairs: dict[tuple[str, int], dict[str, TensorInfo]] = {}
    for tensor in tensors:
        found = _KEY.fullmatch(loaded(tensor))
        module = _module(found["path"], raw) if found else None
        if found and module is not None:
            pairs.setdefault((module, found["inner"].count(".")), {})[found["side"]] = tensor
    whole = {place: pair for place, pair in pairs.items() if len(pair) == _PAIR}
    entries = {place: fit for place, pair in whole.items() if (fit := _fit(pair, raw[place[0]]))}
    if not entries or entries.keys() != whole.keys():
        return None
    # The innermost wrapper is the one that PEFT put on first: the order in which they have to be named.
    ordered = sorted(entries, key=lambda place: -place[1])
    names = list(dict.fromkeys(_entry(place[0], entries[place][0].path) for place in ordered))
    ranks = {entries[place][0].path.rpartition(".")[2]: entries[place][1] for place in ordered}
    odd = {f".*\\.{name}": rank for name, rank in ranks.items() if rank != file.config.get("r")}
    return LostExperts(
        tuple(tensor.key for pair in whole.values() for tensor in pair.values()),
        tuple(dict.fromkeys(module for module, _ in ordered)),
        {"target_parameters": names, **({"rank_pattern": odd} if odd else {})},
    )


def _raw_parameters(file: AdapterFile) -> dict[str, list[ParameterInfo]]:
    """Module → its parameters of three dimensions, as far as it carries no adapter."""
    held: dict[str, list[ParameterInfo]] = {}
    for parameter in file.structure.parameters if file.structure else ():
        if len(parameter.shape) == 3 and parameter.module not in adapter_paths(file):  # experts, outputs, inputs
            held.setdefault(parameter.module, []).append(parameter)
    return held


def _module(path: str, held: Mapping[str, Any]) -> str | None:
    """The module of a key's path, which may begin above or below the root of the model."""
    bare = path.removeprefix("base_model.model.")
    return next((module for module in held if module in (path, bare) or module.endswith(f".{bare}")), None)


def _fit(pair: Mapping[str, TensorInfo], parameters: list[ParameterInfo]) -> tuple[ParameterInfo, int] | None:
    """The parameter that a pair of factors fits, and the rank for each expert."""
    (rows, inputs), (outputs, columns) = pair["A"].shape, pair["B"].shape
    for parameter in parameters:
        experts, *sizes = parameter.shape
        if rows == columns and rows % experts == 0 and sorted(sizes) == sorted((inputs, outputs)):
            return parameter, rows // experts
    return None


def _entry(module: str, parameter: str) -> str:
    """As short as it is told apart from layers: `mlp.experts.down_proj`."""
    return ".".join([*module.split(".")[-2:], parameter.rpartition(".")[2]])
