"""What the rules on mixtures of experts share: routers that carry adapters, experts and layers that carry none, and one config for all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from peft_inspect.records import AdapterInfo, AdapterLayerInfo, ConfigEntry, Coverage, Structure
from peft_inspect.rules.entries import entries, expert_entries, is_feed_forward, is_shorthand, with_parameters

_MOST = 0.5  # of the weights of a stack of blocks


def router_rows(structure: Structure, adapter: AdapterInfo) -> list[AdapterLayerInfo]:
    """The layers of an adapter that are routers or lie within one."""
    routers = {module.path for module in structure.modules if module.routes}
    own = (row for row in structure.adapter_layers if row.adapter == adapter.name)
    return [row for row in own if row.path in routers or row.path.rpartition(".")[0] in routers]


def unreached_experts(structure: Structure) -> list[Coverage]:
    """The expert rows of the stacks of whose weights they are the most, where an adapter reaches none of them."""
    stacks = dict.fromkeys(row.stack for row in structure.coverage if row.kind == "experts")
    return [row for stack in stacks for row in _unreached(structure, stack)]


def asks_for_experts(structure: Structure) -> bool:
    """Whether any entry asks for more of the blocks than mixers: attention names leave the feed-forward part alone on purpose."""
    asked = [target for adapter in structure.adapters for target in entries(adapter, "target_modules")]
    in_blocks = [row for row in structure.coverage if row.stack]
    mixers = {leaf(row.name) for row in in_blocks if row.kind == "linear" and not is_feed_forward(row)}
    outside = {leaf(row.name) for row in structure.coverage if not row.stack}.difference(leaf(row.name) for row in in_blocks)
    return any(is_shorthand(target) or not (mixers | outside).issuperset(_leaves(target)) for target in asked)


def rewritten_layers(adapter: AdapterInfo) -> tuple[list[ConfigEntry], tuple[str, ...]]:
    """The entries that PEFT rewrote for fused experts, and the dense or shared layers of these names that are left out by it."""
    both = (*entries(adapter, "target_modules"), *entries(adapter, "target_parameters"))
    targets = [target for target in both if target.rewritten]
    paths = tuple(dict.fromkeys(path for target in targets for path in target.rewritten))
    return (targets, paths) if paths and any(target.matched for target in targets) else ([], ())


def suggestion(adapter: AdapterInfo, structure: Structure) -> dict[str, Any]:
    """The config that leaves routers out, reaches the experts that were asked for, and the layers that PEFT's rewriting left out."""
    rows = router_rows(structure, adapter)
    experts = expert_entries(unreached_experts(structure)) if asks_for_experts(structure) else []
    dense = sorted({f"{leaf(path)}.weight" for path in rewritten_layers(adapter)[1]})
    if not rows:
        return with_parameters(adapter, [*experts, *dense])
    fields = _without_routers(adapter, rows, structure)
    if not fields or not (experts or dense):
        return fields
    held = fields.get("target_parameters") or []
    return {**fields, **with_parameters(adapter, ()), "target_parameters": list(dict.fromkeys((*held, *experts, *dense)))}


def kind(row: AdapterLayerInfo) -> str:
    """The name of a router without its place: `mlp.gate`."""
    return ".".join(part for part in row.name.split(".")[-3:] if not part.isdecimal() and part != "layers")


def leaf(name: str) -> str:
    """The last part of a path."""
    return name.rpartition(".")[2]


def _without_routers(adapter: AdapterInfo, rows: list[AdapterLayerInfo], structure: Structure) -> dict[str, Any]:
    """The names of everything else that is adapted; a name that routers share with other layers is excluded by their paths."""
    routed = {row.path for row in rows}
    others = [row for row in structure.adapter_layers if row.adapter == adapter.name and row.path not in routed]
    modules = [leaf(row.name) for row in others if row.parameter_name is None]
    parameters = [f"{leaf(row.name)}.{row.parameter_name}" for row in others if row.parameter_name is not None]
    asked = entries(adapter, "target_modules")
    if not others:
        return {}
    if asked and not any(is_shorthand(target) for target in asked) and not any(row.parameter_name for row in rows):
        modules = _own_entries([target for target in asked if target.matched], routed) or modules
    fields: dict[str, Any] = {"target_modules": list(dict.fromkeys(modules))}
    if parameters or entries(adapter, "target_parameters"):
        fields["target_parameters"] = list(dict.fromkeys(parameters)) or None
    if {leaf(row.name) for row in rows if row.parameter_name is None}.intersection(modules):
        fields["exclude_modules"] = "|".join(sorted({rf".*\.{re.escape(kind(row))}" for row in rows}))
    return fields


def _own_entries(asked: list[ConfigEntry], routed: set[str]) -> list[str]:
    """The user's own entries, if those that reach routers reach nothing else."""
    kept = [target.entry for target in asked if routed.isdisjoint(target.matched)]
    return kept if all(routed.issuperset(target.matched) for target in asked if target.entry not in kept) else []


def _unreached(structure: Structure, stack: str) -> Iterator[Coverage]:
    here = [row for row in structure.coverage if row.stack == stack and row.kind != "parameter"]
    experts = [row for row in here if row.kind == "experts" and not row.routes]
    most = sum(row.parameters for row in experts) > _MOST * sum(row.parameters for row in here)
    yield from experts if most and not any(row.adapted for row in experts) else ()


def _leaves(target: ConfigEntry) -> set[str]:
    return {leaf(name) for name in target.names or target.closest} or {target.entry}
