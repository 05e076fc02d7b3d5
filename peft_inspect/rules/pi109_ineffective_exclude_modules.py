"""An entry of `exclude_modules` excludes nothing.

A list entry is compared with the whole of a module's path or with its end: `"vision_tower"` excludes the
module of that name, which is no target anyway, and none of the layers inside it.

Use a regular expression for everything below a module: `exclude_modules=r".*vision_tower.*"`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from peft_inspect.records import AdapterInfo, ConfigEntry, Finding, Origin, Severity, Structure
from peft_inspect.rules.entries import adapters_with_targets, entries, within
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import agreed, counted, literal, nearest, setting_fix


def check(structure: Structure) -> Iterator[Finding]:
    """Per adapter, the entries without effect: adapters sit where they point to, or they point to nothing in the model."""
    for adapter in adapters_with_targets(structure):
        excluded = entries(adapter, "exclude_modules")
        idle = [target for target in excluded if not target.matched and (target.missed or not _exists(target, structure))]
        if idle:
            suggestion = _suggestion(adapter, idle)
            yield RULE.finding(
                f"adapter {adapter.name!r}: " + "; ".join(_said(target) for target in idle),
                (path for target in idle for path in target.missed),
                adapter=adapter.name,
                facts={
                    "entries": [target.entry for target in idle],
                    "adapted_inside": {target.entry: len(target.missed) for target in idle},
                },
                suggestion=suggestion,
                origin=Origin("adapter-config", (*(target.entry for target in idle), "exclude_modules"), adapter.name),
                fix=setting_fix(suggestion, "remove the entry, or write it as a regular expression over whole module paths"),
            )


def _exists(target: ConfigEntry, structure: Structure) -> bool:
    """Whether the entry names modules of the model; if none of them carries an adapter, it says what is so already."""
    try:
        pattern = re.compile(rf"(?:.*\.)?(?:{target.entry})")
    except re.error:
        pattern = re.compile(rf"(?:.*\.)?{re.escape(target.entry)}")
    return any(pattern.fullmatch(module.path) for module in structure.modules)


def _said(target: ConfigEntry) -> str:
    if target.missed:
        return (
            f"{literal(target.entry)} excludes nothing: it has to match a whole module path or the end of one, and "
            f"{counted(len(target.missed), 'layer')} inside {agreed(len(target.missed), 'carries an adapter', 'carry adapters')}"
        )
    return f"{literal(target.entry)} excludes nothing: the model has no such module{nearest(target.closest)}"


def _suggestion(adapter: AdapterInfo, idle: list[ConfigEntry]) -> dict[str, Any]:
    """One regular expression for all entries: whole subtrees for those that had no effect, as before for the others."""
    patterns: list[str] = []
    for target in entries(adapter, "exclude_modules"):
        name = _pattern(target.entry)
        if target not in idle:
            patterns.append(name if target.regex else rf"(?:.*\.)?{name}")
        elif target.missed:
            patterns.append(_subtree(name, [within(adapter, path) for path in target.missed]))
    return {"exclude_modules": "|".join(patterns) or None}


def _pattern(entry: str) -> str:
    """An entry as a part of a regular expression: a plain name, or one that does not compile, stands for itself."""
    try:
        return re.escape(entry) if re.fullmatch(r"[\w.]+", entry) else f"(?:{re.compile(entry).pattern})"
    except re.error:
        return re.escape(entry)


def _subtree(name: str, missed: list[str]) -> str:
    """Everything in modules of this name; where the layers lie in modules whose names only contain it, in those."""
    pattern = rf"(?:.*\.)?{name}(?:\..*)?"
    if all(re.fullmatch(pattern, path) for path in missed):
        return pattern
    spans = [(path, found) for path in missed if (found := re.search(name, path))]
    whole = (path[path.rfind(".", 0, found.start()) + 1 : found.end()] + path[found.end() :].partition(".")[0] for path, found in spans)
    return rf"(?:.*\.)?(?:{'|'.join(re.escape(part) for part in dict.fromkeys(whole))})(?:\..*)?"


def broken() -> Example:
    """The name of a container in a list."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj", "down_proj"], exclude_modules=["layers.0"])
    return Example(get_peft_model(tiny_llama(), config), text_batch())


def fixed() -> Example:
    """A regular expression for all that is inside."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj", "down_proj"], exclude_modules=r".*\.layers\.0\..*")
    return Example(get_peft_model(tiny_llama(), config), text_batch())


RULE = Rule("PI109", "ineffective-exclude-modules", Severity.WARNING, over=Structure, check=check, broken=broken, fixed=fixed)
