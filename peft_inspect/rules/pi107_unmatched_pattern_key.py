"""A key of `rank_pattern` or `alpha_pattern` applies to no adapter layer.

A key is matched against the end of a module's path within the base model. One copied from the paths of
the wrapped model, with `base_model.model.` in front, misspelt, or hidden by an earlier key that matches the
same layers never applies, and the layers keep the common rank.

Write the end of the path as the base model has it, the most specific key first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from peft_inspect.records import AdapterInfo, ConfigEntry, Finding, Origin, Severity, Structure
from peft_inspect.rules.entries import adapters_with_targets, entries
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import literal, nearest, setting_fix

_FIELDS = ("rank_pattern", "alpha_pattern")


def check(structure: Structure) -> Iterator[Finding]:
    """Per adapter, the keys of both fields that apply nowhere."""
    for adapter in adapters_with_targets(structure):
        unmatched = [target for field in _FIELDS for target in entries(adapter, field) if not target.matched]
        if unmatched:
            names = {layer.name for layer in structure.adapter_layers if layer.adapter == adapter.name}
            suggestion = {field: value for field in _FIELDS if (value := _corrected(adapter, field, names)) is not None}
            yield RULE.finding(
                f"adapter {adapter.name!r}: " + "; ".join(_said(target) for target in unmatched),
                (path for target in unmatched for path in target.dropped),
                adapter=adapter.name,
                facts={
                    "unmatched": {field: [target.entry for target in unmatched if target.field == field] for field in _FIELDS},
                },
                suggestion=suggestion,
                origin=Origin("adapter-config", (*(target.entry for target in unmatched), unmatched[0].field), adapter.name),
                fix=setting_fix(suggestion, "write the key as the end of a module path within the base model"),
            )


def _said(target: ConfigEntry) -> str:
    if target.dropped:
        return f"the {target.field} key {literal(target.entry)} matches only layers that an earlier key has decided"
    return f"the {target.field} key {literal(target.entry)} applies to no adapter layer{nearest(target.closest)}"


def _corrected(adapter: AdapterInfo, field: str, names: set[str]) -> dict[str, Any] | None:
    """The pattern with the unmatched keys in a spelling that applies, hidden keys first; None where nothing was wrong."""
    targets = entries(adapter, field)
    if all(target.matched for target in targets):
        return None
    values: dict[str, Any] = adapter.config.get(field) or {}
    special_first = sorted((target for target in targets if target.dropped), key=lambda target: len(target.dropped))
    hidden = {target.entry: values.get(target.entry) for target in special_first}
    kept = {target.entry: values.get(target.entry) for target in targets if target.matched}
    corrected = {
        key: values.get(target.entry) for target in targets if not (target.matched or target.dropped) and (key := _key(target, names))
    }
    return hidden | kept | {key: value for key, value in corrected.items() if key not in kept}


def _key(target: ConfigEntry, names: set[str]) -> str | None:
    """The longest end of the key that applies to a layer, or to all in a module of that name; else the nearest name that one has."""
    parts = target.entry.split(".")
    ends = [".".join(parts[at:]) for at in range(len(parts))]
    tries = (*ends[1:], *(rf"{end}\..*" for end in ends))
    fitting = next((key for key in tries if key and any(_fits(key, name) for name in names)), None)
    return fitting or next((name for name in target.closest if any(_fits(re.escape(name), known) for known in names)), None)


def _fits(end: str, name: str) -> bool:
    try:
        return re.match(rf"(.*\.)?({end})$", name) is not None
    except re.error:
        return False


def broken() -> Example:
    """A key copied from the paths of the wrapped model."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj", "v_proj"], r=4, rank_pattern={"base_model.model.model.layers.0.self_attn.q_proj": 16})
    return Example(get_peft_model(tiny_llama(), config), text_batch())


def fixed() -> Example:
    """The same layer as the base model knows it."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj", "v_proj"], r=4, rank_pattern={"model.layers.0.self_attn.q_proj": 16})
    return Example(get_peft_model(tiny_llama(), config), text_batch())


RULE = Rule("PI107", "unmatched-pattern-key", Severity.ERROR, over=Structure, check=check, broken=broken, fixed=fixed)
