"""An entry of `target_modules` or `target_parameters` ends up on no module.

PEFT wraps what it finds and says nothing of the rest, as long as one entry matched. A name that is
misspelt, fused under another name (`q_proj` in a model with `qkv_proj`), taken from another
architecture, or matched and then dropped by `layers_to_transform` or `exclude_modules` leaves its
layers untrained without a word.

Use the names that this model has; the finding says which are nearest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peft_inspect.records import AdapterInfo, Finding, Severity, Structure, Target
from peft_inspect.rules.entries import adapters_with_targets, entries, layers_named, with_parameters
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import agreed, counted, literal, nearest, setting_fix


def check(structure: Structure) -> Iterator[Finding]:
    """Per adapter, the entries that reached nothing; what PEFT itself added to a config is not the user's."""
    for adapter in adapters_with_targets(structure):
        unmatched = [target for target in _asked(adapter) if not target.matched]
        if not unmatched:
            continue
        suggestion = _suggestion(adapter, unmatched, structure)
        yield RULE.finding(
            f"adapter {adapter.name!r}: " + "; ".join(_said(target) for target in unmatched),
            (path for target in unmatched for name in target.closest[:1] for path in layers_named(structure, name)),
            facts={
                "adapter": adapter.name,
                "unmatched": {target.entry: list(target.closest) for target in unmatched},
                "dropped": {target.entry: len(target.dropped) for target in unmatched if target.dropped},
                "suggestion": suggestion,
            },
            fix=setting_fix(suggestion, "use names that this model has: `peft-inspect tree` shows them"),
        )


def _asked(adapter: AdapterInfo) -> Iterator[Target]:
    """The entries that the user wrote, or may have: not what PEFT put into the config in their place."""
    parameters = entries(adapter, "target_parameters")
    reached = {target.entry for target in parameters if target.matched}
    for target in entries(adapter, "target_modules"):
        excluded = adapter.all_linear and target.dropped and adapter.config.get("exclude_modules")
        if not excluded and not (adapter.converted and target.entry in reached):
            yield target
    yield from (target for target in parameters if not (adapter.converted and reached and _bare(target)) or target.matched)


def _bare(target: Target) -> bool:
    """Whether this is an entry as PEFT writes them when it rewrites a config: no path, or the router's weight."""
    return target.entry.count(".") == 0 or target.entry == "gate.weight"


def _said(target: Target) -> str:
    if target.dropped:
        return (
            f"{literal(target.entry)} names {counted(len(target.dropped), 'module')} of this model ({target.dropped[0]}, for one), and "
            f"layers_to_transform, exclude_modules or modules_to_save {agreed(len(target.dropped), 'drops it', 'drop all of them')}"
        )
    if target.rewritten:
        return (
            f"{literal(target.entry)} names {counted(len(target.rewritten), 'module')}, and PEFT rewrote it for fused experts that this "
            "model does not have"
        )
    return f"no module is called {literal(target.entry)}{nearest(target.closest)}"


def _suggestion(adapter: AdapterInfo, unmatched: list[Target], structure: Structure) -> dict[str, Any]:
    """The config with the nearest names in the place of those that reached nothing."""
    dropped = [target for target in unmatched if target.dropped]
    if dropped:
        return _without_limits(adapter, dropped, structure)
    experts = {row.name for row in structure.coverage if row.kind == "experts"}
    fields: dict[str, Any] = {}
    parameters = [target.entry for target in entries(adapter, "target_parameters") if target.matched]
    modules = [target.entry for target in entries(adapter, "target_modules") if target.matched]
    near = (next((name for name in target.closest if not _refused(name, structure)), None) for target in unmatched)
    for name in dict.fromkeys(name for name in near if name):
        expert = [entry for entry in experts if entry == name or entry.endswith(f".{name}")]
        if expert:
            parameters += sorted(expert)
        elif "." not in name or not name.endswith(".weight"):
            modules.append(name)
    if not modules and not parameters:
        return {}
    if entries(adapter, "target_modules"):
        fields["target_modules"] = list(dict.fromkeys(modules))
    if parameters:
        fields.update(with_parameters(adapter, ()) | {"target_parameters": list(dict.fromkeys(parameters))})
    elif entries(adapter, "target_parameters"):
        fields["target_parameters"] = None
    return fields


def _refused(name: str, structure: Structure) -> bool:
    """Whether the model reads the weights of all layers of this name itself, as fused mamba kernels do: PEFT may refuse them."""
    rows = [row for row in structure.coverage if row.name == name or row.name.endswith(f".{name}")]
    return bool(rows) and all(row.read for row in rows)


def _without_limits(adapter: AdapterInfo, dropped: list[Target], structure: Structure) -> dict[str, Any]:
    """The indices on which the dropped modules are, or the config without what excludes them."""
    asked = adapter.config.get("layers_to_transform")
    if asked is not None:
        stacks = [stack.path for tower in structure.towers for stack in tower.stacks]
        blocks = {
            int(index)
            for target in dropped
            for path in target.dropped
            for stack in stacks
            if path.startswith(f"{stack}.") and (index := path[len(stack) + 1 :].partition(".")[0]).isdecimal()
        }
        return {"layers_to_transform": sorted({*([asked] if isinstance(asked, int) else asked), *blocks})} if blocks else {}
    return {"exclude_modules": None} if adapter.config.get("exclude_modules") else {}


def broken() -> Example:
    """Names of another architecture beside one that exists."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_prj"]))
    return Example(model, text_batch())


def fixed() -> Example:
    """Names that this model has."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    return Example(model, text_batch())


RULE = Rule("PI101", "unmatched-target-module", Severity.ERROR, over=Structure, check=check, broken=broken, fixed=fixed)
