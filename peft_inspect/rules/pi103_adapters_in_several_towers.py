"""One entry lands in more than one tower: language model, vision, audio, projector.

A list entry matches the end of a module path, wherever that is, and vision towers call their projections
`q_proj` and `v_proj` too. Adapters meant for the language model then also train in the image encoder:
more memory, another model than was planned, and servers that cannot load the result.

Give a regular expression that names the tower. Where all towers are meant, ignore this rule with that reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from peft_inspect.records import AdapterInfo, ConfigEntry, Finding, Origin, Severity, Structure
from peft_inspect.rules.entries import adapters_with_targets, entries, families, is_list, is_shorthand
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.tower_pattern import endings_in, names_outside, other_names, start_of
from peft_inspect.rules.words import agreed, counted, quoted, setting_fix


def check(structure: Structure) -> Iterator[Finding]:
    """Per adapter, the entries that landed in towers that are not one model together, and that do not name them all."""
    for adapter in adapters_with_targets(structure):
        if several := in_several(adapter, structure):
            towers = _towers(several)
            kept = _kept(towers, structure)
            suggestion = _suggestion(adapter, kept, towers, structure)
            yield RULE.finding(
                f"adapter {adapter.name!r}: {quoted(target.entry for target in several)} "
                + ("lands" if len(several) == 1 else "land")
                + f" in {len(towers)} towers: {_counts(several)}"
                + _elsewhere(adapter, kept, structure),
                (path for target in several for path in target.matched if structure.tower_of(path) != kept),
                adapter=adapter.name,
                facts={
                    "by_tower": {target.entry: dict(target.by_tower) for target in several},
                    "kept": kept,
                    "layers_to_transform": adapter.config.get("layers_to_transform"),
                    "suggestions": {tower: _suggestion(adapter, tower, towers, structure) for tower in towers},
                },
                suggestion=suggestion,
                origin=Origin("adapter-config", ("target_modules",), adapter.name),
                fix=setting_fix(suggestion, "name the tower in target_modules") + f" to adapt {kept!r} alone",
                severity=Severity.NOTE if _meant(several, adapter, structure) else None,
            )


def in_several(adapter: AdapterInfo, structure: Structure) -> list[ConfigEntry]:
    """The entries of an adapter that landed in several towers and do not name them all."""
    found = entries(adapter, "target_modules")
    return [target for target in found if len(families(structure, target)) > 1 and not _names_each(target, adapter)]


def one_tower(adapter: AdapterInfo, structure: Structure) -> dict[str, Any] | None:
    """The fields that keep one tower; None where the entries landed in no more, or are meant for all that they reached."""
    several = in_several(adapter, structure)
    if not several or _meant(several, adapter, structure):
        return None
    towers = _towers(several)
    return _suggestion(adapter, _kept(towers, structure), towers, structure)


def _towers(several: list[ConfigEntry]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tower for target in several for tower in target.by_tower if tower))


def _kept(towers: tuple[str, ...], structure: Structure) -> str:
    """The tower that was most likely meant: one that trains in the step that ran, if any ran, and that looks like the language model."""
    reached = {structure.tower_of(path) for path in structure.reached or ()}
    return max(towers, key=lambda tower: (tower in reached, _vocabulary(tower, structure)))


def _names_each(target: ConfigEntry, adapter: AdapterInfo) -> bool:
    """Whether a regular expression spells out every tower that it reaches."""
    return not is_list(adapter, "target_modules") and all(tower.rpartition(".")[2] in target.entry for tower in target.by_tower if tower)


def _meant(several: list[ConfigEntry], adapter: AdapterInfo, structure: Structure) -> bool:
    """Every linear layer was asked for, by all-linear or by all names, or the towers are two halves of one comparison, which is learned by a scale of its own."""
    if any(is_shorthand(target) for target in several):
        return True
    towers = {tower for target in several for tower in target.by_tower if tower}
    linear = [row for row in structure.coverage if row.kind == "linear" and row.stack and row.tower in towers]
    named = {tower for target in entries(adapter, "target_modules") if len(target.by_tower) == 1 for tower in target.by_tower}
    if all(row.adapted for row in linear) and len(towers - named) < 2:  # names that only the other towers have were listed too
        return True
    parents = {tower.rpartition(".")[0] for tower in towers}
    return len(parents) == 1 and any(p.role == "base" and p.numel == 1 and p.module in parents for p in structure.parameters)


def _counts(several: list[ConfigEntry]) -> str:
    counts: dict[str, int] = {}
    for target in several:
        for tower, count in target.by_tower.items():
            counts[tower] = counts.get(tower, 0) + count
    return ", ".join(f"{counted(count, 'layer')} in {tower or 'none of them'}" for tower, count in counts.items())


def _vocabulary(tower: str, structure: Structure) -> tuple[int, int]:
    """How much a tower looks like the language model, which is the one most often meant: by its embeddings, then by its size."""
    rows = [row for row in structure.coverage if row.tower == tower]
    return sum(row.parameters for row in rows if row.kind == "embedding"), sum(row.parameters for row in rows)


def _suggestion(adapter: AdapterInfo, kept: str, towers: tuple[str, ...], structure: Structure) -> dict[str, Any]:
    """A regular expression for one tower. Where PEFT resolves it for fused experts first, the other towers are excluded instead."""
    if adapter.converted:
        return {"exclude_modules": "|".join(rf"{start_of(tower, adapter, structure)}.*" for tower in towers if tower != kept)}
    start = start_of(kept, adapter, structure)
    asked = entries(adapter, "target_modules")
    if not is_list(adapter, "target_modules") and not any(map(is_shorthand, asked)):
        return {"target_modules": f"(?={start})(?:{asked[0].entry})"}
    here = dict.fromkeys((*endings_in(kept, adapter, structure), *(name for _, name in other_names(adapter, kept, structure))))
    endings = "|".join(map(re.escape, here))
    if not endings:
        return {}
    limit = adapter.config.get("layers_to_transform")
    indices = [limit] if isinstance(limit, int) else limit
    blocks = rf"(?:.*\.)?(?:{'|'.join(map(str, indices))})\." if indices else ""
    inside = rf"{start}{blocks}(?:.*\.)?(?:{endings})"
    fields: dict[str, Any] = {"target_modules": "|".join((inside, *map(re.escape, names_outside(adapter, structure))))}
    return fields | ({"layers_to_transform": None} if indices else {})


def _elsewhere(adapter: AdapterInfo, kept: str, structure: Structure) -> str:
    """Entries that reach other towers alone, where the one that is kept has layers of another name for their work."""
    found = other_names(adapter, kept, structure)
    asked = quoted(dict.fromkeys(entry for entry, _ in found))
    names = quoted(dict.fromkeys(name for _, name in found))
    return f"; {asked} {agreed(len({entry for entry, _ in found}), 'is', 'are')} not in {kept}, which has {names} instead" if found else ""


def _tiny_llava() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4, projection_dim=16
    )
    text = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_id=63, vision_feature_layer=-1)
    ).train()


def broken() -> Example:
    """Names that the language model and the vision tower share."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(_tiny_llava(), LoraConfig(target_modules=["q_proj", "v_proj"])))


def fixed() -> Example:
    """A regular expression that names the language model."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=r"model\.language_model\..*\.(q_proj|v_proj)")
    return Example(get_peft_model(_tiny_llava(), config))


RULE = Rule(
    "PI103",
    "adapters-in-several-towers",
    Severity.WARNING,
    over=Structure,
    check=check,
    broken=broken,
    fixed=fixed,
    gives_way_to=("PI109",),
    because="An exclusion that fails of itself shows which towers were not meant.",
)
