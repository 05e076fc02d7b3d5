"""One tower of a model as a regular expression over the names of its layers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from peft_inspect.layer_names import same_work
from peft_inspect.records import AdapterInfo, ConfigEntry, Structure
from peft_inspect.rules.entries import entries, is_shorthand, within


def start_of(tower: str, adapter: AdapterInfo, structure: Structure) -> str:
    """The start of every name in a tower, and of none in the towers inside it that the adapter reaches."""
    family = {known.path: known.family for known in structure.towers}
    reached = dict.fromkeys(path for target in entries(adapter, "target_modules") for path in target.by_tower if path in family)
    inside = [path for path in reached if family[path] != family[tower] and path.startswith(f"{tower}.")]
    nested = "|".join(re.escape(f"{within(adapter, path)}.") for path in inside)
    below = within(adapter, tower)
    return (f"(?!{nested})" if nested else "") + (re.escape(f"{below}.") if below else "")


def endings_in(tower: str, adapter: AdapterInfo, structure: Structure) -> tuple[str, ...]:
    """Endings of names that reach in this tower what the entries reach there now."""
    reaching = [target for target in entries(adapter, "target_modules") if tower in target.by_tower]
    return tuple(dict.fromkeys(end for target in reaching for end in _endings(target, tower, structure)))


def other_names(adapter: AdapterInfo, tower: str, structure: Structure) -> tuple[tuple[str, str], ...]:
    """Entries that reach only other towers, each with a name that this one has for the same work and that nothing reaches."""
    here = [row for row in structure.coverage if row.tower == tower and row.stack and row.kind == "linear"]
    bare = list(dict.fromkeys(row.name.rpartition(".")[2] for row in here if not row.adapted))
    foreign = [target for target in entries(adapter, "target_modules") if target.by_tower and tower not in target.by_tower]
    return tuple((target.entry, name) for target in foreign for name in same_work(target.entry, bare))


def names_outside(adapter: AdapterInfo, structure: Structure) -> tuple[str, ...]:
    """Names of what lies outside the towers or between them and was asked for by an entry of its own, such as head and projector."""
    between = {"", *(tower.path for tower in structure.towers if not tower.stacks)}
    apart = [target for target in entries(adapter, "target_modules") if target.by_tower and between.issuperset(target.by_tower)]
    return tuple(dict.fromkeys(name for target in apart for name in target.names))


def _endings(target: ConfigEntry, tower: str, structure: Structure) -> Iterable[str]:
    if not is_shorthand(target):
        return (target.entry,)
    meant = {path for path in target.matched if structure.tower_of(path) == tower and not structure.module[path].routes}
    others = {module.path for module in structure.modules if structure.tower_of(module.path) == tower} - meant
    taken = {end for path in others for end in _ends(path)}
    return sorted({next((end for end in _ends(path) if end not in taken), path) for path in meant})


def _ends(path: str) -> list[str]:
    """`c`, `b.c`, `a.b.c` of `a.b.c`."""
    parts = path.split(".")
    return [".".join(parts[at:]) for at in range(len(parts) - 1, -1, -1)]
