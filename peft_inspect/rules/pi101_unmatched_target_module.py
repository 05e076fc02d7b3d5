"""An entry of `target_modules` or `target_parameters` ends up on no module.

PEFT wraps what it finds and says nothing of the rest, as long as one entry matched. A name that is
misspelt, fused under another name (`q_proj` in a model with `qkv_proj`), taken from another
architecture, or matched and then dropped by `layers_to_transform` or `exclude_modules` leaves its
layers untrained without a word.

Use the names that this model has; the finding says which are nearest. Where a list names one layer as
several architectures do, and one of the names is this model's, that is a note.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from peft_inspect.layer_names import same_work
from peft_inspect.records import AdapterInfo, ConfigEntry, Finding, Origin, Severity, Structure
from peft_inspect.rules.entries import adapters_with_targets, entries, layers_named, with_parameters, with_ties
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import agreed, counted, literal, nearest, setting_fix

_LIMITS = ("layers_to_transform", "layers_pattern", "exclude_modules", "modules_to_save")


def check(structure: Structure) -> Iterator[Finding]:
    """Per adapter, the entries that reached nothing; what PEFT itself added to a config is not the user's."""
    said: dict[str, AdapterInfo] = {}  # copies of a model share what is wrong with their config
    for adapter in adapters_with_targets(structure):
        if unmatched := _unmatched(adapter, structure):
            said.setdefault(f"adapter {adapter.name!r}: " + "; ".join(_said(target, adapter) for target in unmatched), adapter)
    for message, adapter in said.items():
        unmatched = _unmatched(adapter, structure)
        suggestion = _suggestion(adapter, unmatched, structure)
        yield RULE.finding(
            message,
            (path for target in unmatched for name in _meant(target, structure) for path in layers_named(structure, name)),
            adapter=adapter.name,
            facts={
                "unmatched": {target.entry: list(target.closest) for target in unmatched},
                "dropped": {target.entry: len(target.dropped) for target in unmatched if target.dropped},
            },
            suggestion=suggestion,
            origin=Origin(
                "adapter-config", (*_limits(adapter, unmatched), *(target.entry for target in unmatched), unmatched[0].field), adapter.name
            ),
            severity=_severity(adapter, unmatched),
            fix=setting_fix(suggestion, "use names that this model has: `peft-inspect tree` shows them"),
        )


def _unmatched(adapter: AdapterInfo, structure: Structure) -> list[ConfigEntry]:
    return [target for target in _asked(adapter) if not target.matched and not _is_gone(target, structure)]


def _severity(adapter: AdapterInfo, unmatched: list[ConfigEntry]) -> Severity | None:
    """Less than an error where all that the entries stand for is trained: in full, or by the name that this architecture has for it."""
    if all(_trained_in_full(target, adapter) for target in unmatched):
        return Severity.WARNING
    reached = [target.entry for target in _asked(adapter) if target.matched]
    return Severity.NOTE if all(not target.dropped and same_work(target.entry, reached) for target in unmatched) else None


def _asked(adapter: AdapterInfo) -> Iterator[ConfigEntry]:
    """The entries that the user wrote, or may have: not what PEFT put into the config in their place."""
    parameters = entries(adapter, "target_parameters")
    reached = {target.entry for target in parameters if target.matched}
    for target in entries(adapter, "target_modules"):
        excluded = (
            adapter.all_linear and target.dropped and (adapter.config.get("exclude_modules") or adapter.config.get("modules_to_save"))
        )
        if not excluded and not (adapter.converted and target.entry in reached) and not _in_fused(target, reached):
            yield target
    yield from (target for target in parameters if not (adapter.converted and reached and _bare(target)) or target.matched)


def _in_fused(target: ConfigEntry, reached: Collection[str]) -> bool:
    """Whether it is part of an expert parameter that was reached: `gate_proj` of `mlp.experts.gate_up_proj`."""
    words = set(target.entry.rpartition(".")[2].split("_"))
    return any(words <= set(entry.rpartition(".")[2].split("_")) for entry in reached)


def _trained_in_full(target: ConfigEntry, adapter: AdapterInfo) -> bool:
    """Whether it reached nothing because the same modules are in `modules_to_save`: they train all the same."""
    limits = [field for field in _LIMITS if adapter.config.get(field)]
    return bool(target.dropped) and limits == ["modules_to_save"]


def _is_gone(target: ConfigEntry, structure: Structure) -> bool:
    """Whether the module is there and no adapter is anywhere: what it carried was taken off again, which PI112 says."""
    return not structure.adapter_layers and target.entry.rpartition(".")[2] in target.closest


def _limits(adapter: AdapterInfo, unmatched: list[ConfigEntry]) -> list[str]:
    """The fields that drop what the entries name."""
    return [field for field in _LIMITS if adapter.config.get(field)] if all(target.dropped for target in unmatched) else []


def _bare(target: ConfigEntry) -> bool:
    """Whether this is an entry as PEFT writes them when it rewrites a config: no path, or the router's weight."""
    return target.entry.count(".") == 0 or target.entry == "gate.weight"


def _said(target: ConfigEntry, adapter: AdapterInfo) -> str:
    if target.dropped:
        limits = [field for field in _LIMITS if adapter.config.get(field)]
        return (
            f"{literal(target.entry)} names {counted(len(target.dropped), 'module')} of this model ({target.dropped[0]}, for one), and "
            f"{' and '.join(limits)} {agreed(len(limits), 'drops', 'drop')} {agreed(len(target.dropped), 'it', 'all of them')}"
        )
    if target.rewritten:
        return (
            f"{literal(target.entry)} names {counted(len(target.rewritten), 'module')}, and PEFT rewrote it for fused experts that this "
            "model does not have"
        )
    return f"no module is called {literal(target.entry)}{nearest(target.closest)}"


def _suggestion(adapter: AdapterInfo, unmatched: list[ConfigEntry], structure: Structure) -> dict[str, Any]:
    """The config with the nearest names in the place of those that reached nothing, and without what drops the others."""
    dropped = [target for target in unmatched if target.dropped]
    limits = _without_limits(adapter, dropped, structure) if dropped else {}
    if len(dropped) == len(unmatched):
        return limits
    fields: dict[str, Any] = {}
    parameters = [target.entry for target in entries(adapter, "target_parameters") if target.matched]
    kept = limits.get("target_modules") or [target.entry for target in entries(adapter, "target_modules")]
    modules = [target.entry for target in entries(adapter, "target_modules") if target.entry in kept and (target.matched or target.dropped)]
    for name in dict.fromkeys(name for target in unmatched if not target.dropped for name in _meant(target, structure)):
        if experts := _experts(name, structure):
            parameters += experts
        elif "." not in name or not name.endswith(".weight"):
            modules.append(name)
    if not modules and not parameters:
        return limits
    if entries(adapter, "target_modules"):
        fields["target_modules"] = list(dict.fromkeys(modules))
    if parameters:
        fields.update(with_parameters(adapter, ()) | {"target_parameters": list(dict.fromkeys(parameters))})
    elif entries(adapter, "target_parameters"):
        fields["target_parameters"] = None
    return limits | with_ties(fields, adapter, structure)


def _meant(target: ConfigEntry, structure: Structure) -> list[str]:
    """What stands for the entry: the layers that together do its work, else the nearest name; none that PEFT may refuse."""
    near = [name for name in target.closest if not _refused(name, structure)]
    same = [name for name in near if name.rpartition(".")[2] == target.entry.rpartition(".")[2]]
    if not all(_experts(name, structure) for name in same):
        return near[:1]
    work = [*same, *same_work(target.entry, near)]
    return [name for name in work if not any(name.endswith(f".{other}") for other in work)] or near[:1]


def _experts(name: str, structure: Structure) -> list[str]:
    """The expert parameters that a name stands for, where it is none of a layer."""
    rows = [row for row in structure.coverage if row.name == name or row.name.endswith(f".{name}")]
    return sorted({row.name for row in rows}) if all(row.kind == "experts" for row in rows) else []


def _refused(name: str, structure: Structure) -> bool:
    """Whether the model reads the weights of all layers of this name itself, as fused mamba kernels do: PEFT may refuse them."""
    rows = [row for row in structure.coverage if row.name == name or row.name.endswith(f".{name}")]
    return bool(rows) and all(row.read for row in rows)


def _without_limits(adapter: AdapterInfo, dropped: list[ConfigEntry], structure: Structure) -> dict[str, Any]:
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
    excluded = entries(adapter, "exclude_modules")
    if excluded:
        lost = {path for target in dropped for path in target.dropped}
        return {"exclude_modules": [target.entry for target in excluded if not target.regex and lost.isdisjoint(target.matched)] or None}
    kept = [target.entry for target in entries(adapter, "target_modules") if target not in dropped]
    return {"target_modules": kept} if kept else {}  # modules_to_save trains them in full


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
