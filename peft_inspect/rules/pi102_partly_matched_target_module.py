r"""An entry hits some blocks of a stack and misses others that are built the same way.

Some architectures leave a layer out in part of their blocks (a key that serves as value, layers that
share their cache), and a regular expression with `\d` stops at layer 9. Either way the adapter sits on
fewer layers than the config reads as if it did.

Where the model leaves the layer out, adapt one that every block has; in a regular expression, write `\d+`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from peft_inspect.records import AdapterInfo, BlockStack, ConfigEntry, Finding, Origin, Severity, Structure
from peft_inspect.rules.entries import adapters_with_targets, entries, is_list, is_shorthand, names_layers
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import literal, ranges, setting_fix

_ONE_DIGIT = re.compile(r"(?<!\\d)(?<!\[0-9\])(\\d|\[0-9\])(?!\\d|\[0-9\]|[+*{?])")


def check(structure: Structure) -> Iterator[Finding]:
    """Per adapter, the entries that missed layers at a place where they hit others."""
    for adapter in adapters_with_targets(structure):
        targets = [_left(target, structure) for target in entries(adapter, "target_modules")]
        partly = [target for target in targets if target.missed and not _on_purpose(target, structure)]
        if partly:
            suggestion = _suggestion(adapter, partly, structure)
            yield RULE.finding(
                f"adapter {adapter.name!r}: " + "; ".join(_said(target, structure) for target in partly),
                (path for target in partly for path in target.missed),
                adapter=adapter.name,
                facts={
                    "matched": {target.entry: _by_stack(target.matched, structure) for target in partly},
                    "missed": {target.entry: _by_stack(target.missed, structure) for target in partly},
                },
                suggestion=suggestion,
                origin=Origin("adapter-config", (*(target.entry for target in partly), "target_modules"), adapter.name),
                fix=setting_fix(suggestion, "adapt a layer that every block has, or name the blocks that are meant"),
            )


def _left(target: ConfigEntry, structure: Structure) -> ConfigEntry:
    """The entry without what it missed where nothing is left to adapt.

    That is a module all of whose layers carry adapters, or one whose keys serve as values and carry one.
    """
    adapted = {layer.path for layer in structure.adapter_layers}
    below: dict[str, list[str]] = {}
    for path in (path for row in structure.coverage if row.kind == "linear" for path in row.layers):
        below.setdefault(path.rpartition(".")[0], []).append(path)
    leaf = target.entry.rpartition(".")[2]
    keys = leaf.replace("value", "key").replace("v", "k")
    missed = (
        path
        for path in target.missed
        if path not in below or not (adapted.issuperset(below[path]) or (keys != leaf and f"{path}.{keys}" in adapted))
    )
    return replace(target, missed=tuple(missed))


def _on_purpose(target: ConfigEntry, structure: Structure) -> bool:
    """An entry that gives block numbers picks its blocks, unless it just cannot count beyond one digit."""
    if is_shorthand(target):
        return True
    hit = {index for indices in _indices(target.matched, structure).values() for index in indices}
    missed = {index for indices in _indices(target.missed, structure).values() for index in indices}
    return names_layers(target) and not (_ONE_DIGIT.search(target.entry) and max(hit, default=0) <= 9 < min(missed, default=0))


def _said(target: ConfigEntry, structure: Structure) -> str:
    missed = _indices(target.missed, structure)
    parts = [
        f"{len(hit)} of {len(hit) + len(missed[stack])} blocks of {stack} ({ranges(hit)}; not {ranges(missed[stack])})"
        for stack, hit in _indices(target.matched, structure).items()
        if stack in missed
    ]
    return f"{literal(target.entry)} is adapted in {' and '.join(parts)}"


def _indices(paths: Sequence[str], structure: Structure) -> dict[str, set[int]]:
    stacks: list[BlockStack] = [stack for tower in structure.towers for stack in tower.stacks]
    found: dict[str, set[int]] = {}
    for path in paths:
        for stack in stacks:
            if path.startswith(f"{stack.path}."):
                found.setdefault(stack.path, set()).add(int(path[len(stack.path) + 1 :].partition(".")[0]))
    return found


def _by_stack(paths: Sequence[str], structure: Structure) -> dict[str, list[int]]:
    return {stack: sorted(indices) for stack, indices in _indices(paths, structure).items()}


def _suggestion(adapter: AdapterInfo, partly: list[ConfigEntry], structure: Structure) -> dict[str, Any]:
    """The regular expression with a counter behind its digit; in a list, the neighbours that every block has."""
    if not is_list(adapter, "target_modules"):
        entry = partly[0].entry
        return {"target_modules": _ONE_DIGIT.sub(r"\1+", entry)} if _ONE_DIGIT.search(entry) else {}
    asked = [target.entry for target in entries(adapter, "target_modules")]
    kept = [entry for entry in asked if entry not in {target.entry for target in partly}]
    neighbours = [name for target in partly for name in _everywhere(target, structure)]
    return {"target_modules": list(dict.fromkeys((*kept, *neighbours)))} if kept or neighbours else {}


def _everywhere(target: ConfigEntry, structure: Structure) -> Iterator[str]:
    """Linear layers beside those that the entry hit, in all blocks that have such a neighbourhood."""
    hit = set(target.matched)
    for row in structure.coverage:
        if hit.intersection(row.layers):
            beside = [other for other in structure.coverage if (other.stack, other.part, other.kind) == (row.stack, row.part, "linear")]
            widest = max((len(other.indices) for other in beside), default=0)
            yield from (other.name.rpartition(".")[2] for other in beside if len(other.indices) == widest and not other.read)


def broken() -> Example:
    """A digit where a number was meant, in a model of twelve blocks."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=r".*\.layers\.\d\.self_attn\.q_proj")
    return Example(get_peft_model(tiny_llama(num_hidden_layers=12), config), text_batch())


def fixed() -> Example:
    """A number of any length."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=r".*\.layers\.\d+\.self_attn\.q_proj")
    return Example(get_peft_model(tiny_llama(num_hidden_layers=12), config), text_batch())


RULE = Rule("PI102", "partly-matched-target-module", Severity.WARNING, over=Structure, check=check, broken=broken, fixed=fixed)
