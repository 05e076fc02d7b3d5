"""What the rules on coverage share: the entries of a config, the towers they land in, and how to write what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from peft_inspect.records import AdapterInfo, ConfigEntry, Coverage, Structure

_FEED_FORWARD = re.compile(r"mlp|ffn|feed_?forward|moe|expert|intermediate|dense", re.IGNORECASE)
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # where one begins in a class name: Jamba|MLP, MoE|Layer
_INDEX = re.compile(r"(?:^|[.(|:\[])\d")  # a number that stands for a layer, as in layers.0 or (3|4), not one in a name


def entries(adapter: AdapterInfo, field: str) -> tuple[ConfigEntry, ...]:
    """The rows of one config field."""
    return tuple(target for target in adapter.targets if target.field == field)


def is_feed_forward(row: Coverage) -> bool:
    """Whether a layer belongs to the part of a block that treats every position alone, as the name of its class says."""
    return _FEED_FORWARD.search(row.part[_model_name(row) :]) is not None


def _model_name(row: Coverage) -> int:
    """How much of the class's name is the model's, which the block's starts with too: the attention of a `Qwen3Moe` is no expert."""
    if row.block.startswith(row.part):
        return 0
    words = (start.start() for start in _WORD.finditer(row.part) if row.block.startswith(row.part[: start.start()]))
    return max(words, default=0)


def is_list(adapter: AdapterInfo, field: str) -> bool:
    """Whether a field holds a list of names; a string is a regular expression or all-linear."""
    return not any(target.regex or is_shorthand(target) for target in entries(adapter, field))


def is_shorthand(target: ConfigEntry) -> bool:
    """Whether an entry asks for every linear layer there is."""
    return target.entry.lower() == "all-linear"


def names_layers(target: ConfigEntry) -> bool:
    """Whether an entry picks blocks by their number, so that hitting some of them is what it says."""
    return _INDEX.search(target.entry.replace("\\", "")) is not None


def expert_entries(rows: Iterable[Coverage]) -> list[str]:
    """Entries of `target_parameters` that reach expert parameters."""
    return list(dict.fromkeys(row.name for row in rows if row.kind == "experts"))


def families(structure: Structure, target: ConfigEntry) -> frozenset[str]:
    """The towers an entry landed in, those that are one model together counted as one."""
    family = {tower.path: tower.family for tower in structure.towers}
    return frozenset(family[path] for path in target.by_tower if path in family)


def within(adapter: AdapterInfo, path: str) -> str:
    """A live path below the base model as the config has to spell it; "" for the base model itself."""
    if not adapter.base:
        return path
    return "" if path == adapter.base else path.removeprefix(f"{adapter.base}.")


def with_parameters(adapter: AdapterInfo, names: Iterable[str]) -> dict[str, object]:
    """The fields that add `target_parameters`. PEFT refuses dropout on them."""
    held = [target.entry for target in entries(adapter, "target_parameters")]
    fields: dict[str, object] = {"target_parameters": list(dict.fromkeys((*held, *names)))}
    if adapter.config.get("lora_dropout"):
        fields["lora_dropout"] = 0.0
    return fields


def takes_tying(adapter: AdapterInfo, field: str) -> bool:
    """Whether a field of this adapter can name both sides of a tie for PEFT to keep them one."""
    return "ensure_weight_tying" in adapter.config and is_list(adapter, field)


def with_ties(fields: dict[str, Any], adapter: AdapterInfo, structure: Structure) -> dict[str, Any]:
    """The fields with both sides of every tie of which they name one, tied."""
    tied = dict(fields)
    for tie in structure.ties:
        leaves = [name.rpartition(".")[2] for name in tie.names]
        for field in ("modules_to_save", "target_modules"):
            named = fields.get(field)
            if (
                isinstance(named, list)
                and takes_tying(adapter, field)
                and not {name.rpartition(".")[2] for name in named}.isdisjoint(leaves)
            ):
                tied |= {field: list(dict.fromkeys((*tied[field], *leaves))), "ensure_weight_tying": True}
    return tied


def adapters_with_targets(structure: Structure) -> Iterator[AdapterInfo]:
    """The adapters that have a target table; what a prompt goes on is no target of layers."""
    return (adapter for adapter in structure.adapters if adapter.targets and not adapter.prompt_learning)


def layers_named(structure: Structure, name: str) -> tuple[str, ...]:
    """Paths of the layers that a list entry of this name would reach."""
    return tuple(path for row in structure.coverage if row.name == name or row.name.endswith(f".{name}") for path in row.layers)


def topmost_fresh(structure: Structure, adapter: AdapterInfo) -> dict[str, str]:
    """The outermost modules below an adapter's base model that no checkpoint brings and that nothing trains: name → path."""
    below = f"{adapter.base}." if adapter.base else ""
    fresh = {module.path for module in structure.modules if module.fresh and module.path.startswith(below)}
    top = sorted(path for path in fresh if fresh.isdisjoint(_around(path)))
    return {within(adapter, path): path for path in top if _is_frozen(path, structure)}


def names_to_save(names: Iterable[str], structure: Structure) -> list[str]:
    """The names as `modules_to_save` takes them: for a list of modules, which PEFT cannot save as one, what it holds.

    PEFT compares the end of a path without regard to its dots: what would reach `q_proj` as well, as `proj` does, is left out.
    """
    lists = {module.path for module in structure.modules if not module.has_forward}
    found: list[str] = []
    for name in names:
        held = [path for path in lists if f".{path}".endswith(f".{name}")]
        inside = [module.path for module in structure.modules if module.path.rpartition(".")[0] in held]
        children = dict.fromkeys(f"{name}.{path.rpartition('.')[2]}" for path in inside)
        found += names_to_save(children, structure) if held else [name] if not _ends_others(name, structure) else []
    return list(dict.fromkeys(found))


def _ends_others(name: str, structure: Structure) -> bool:
    return any(module.path.endswith(name) and not f".{module.path}".endswith(f".{name}") for module in structure.modules)


def _around(path: str) -> Iterator[str]:
    parts = path.split(".")
    return (".".join(parts[:end]) for end in range(len(parts)))


def _is_frozen(path: str, structure: Structure) -> bool:
    held = [p for p in structure.parameters if p.module == path or p.module.startswith(f"{path}.")]
    return bool(held) and not any(parameter.requires_grad for parameter in held)
