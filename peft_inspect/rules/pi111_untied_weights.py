"""Weights that the base model ties are no longer one tensor, or only one side of a tie is adapted.

Input embedding and output head of many models share one matrix. A trained copy of one of them in
`modules_to_save`, or an adapter on one of them alone, makes the two drift apart: the model that is trained
is no longer the one that its config describes, and merging or reloading ties them again. An adapter on one
side alone trains soundly, which is worth a note: merged into the shared matrix, it changes the other side too.

Keep them together with `ensure_weight_tying=True`, with both in the same field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peft_inspect.records import AdapterInfo, Finding, Origin, Severity, Structure, Tie
from peft_inspect.rules.entries import entries, is_list, takes_tying
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import quoted, setting_fix

_SHOWN = 3


def check(structure: Structure) -> Iterator[Finding]:
    """The ties that are broken, and those that an adapter sits on one side of; as one finding where one change of the config fixes them."""
    faults: dict[str, list[Tie]] = {}
    for tie in structure.ties:
        if not tie.one_tensor or tie.one_sided:
            faults.setdefault(f"{tie.one_tensor} {_suggestion(tie, structure)}", []).append(tie)
    for ties in faults.values():
        suggestion = _suggestion(ties[0], structure)
        yield RULE.finding(
            "; ".join(_said(tie) for tie in ties[:_SHOWN]) + (f"; and {len(ties) - _SHOWN} more such ties" if len(ties) > _SHOWN else ""),
            (module for tie in ties for module in _concerned(tie, structure)),
            facts={
                "tied": [name for tie in ties for name in tie.names],
                "one_tensor": ties[0].one_tensor,
            },
            suggestion=suggestion,
            origin=Origin("adapter-config", tuple(suggestion) or ("modules_to_save", "target_modules")),
            fix=setting_fix(suggestion, "tie the weights again, or set tie_word_embeddings=False in the model's config"),
            severity=Severity.NOTE if ties[0].one_tensor else None,  # it trains soundly, and parts when it is merged
        )


def _concerned(tie: Tie, structure: Structure) -> tuple[str, ...]:
    """The adapter layers on a side of it; of what is one tensor no longer, the modules that hold the several as well."""
    return tie.adapted if tie.one_tensor else (*tie.adapted, *(structure.parameter[path].module for path in tie.parameters))


def _said(tie: Tie) -> str:
    names = quoted(tie.names)
    if not tie.one_tensor:
        return f"the base model ties the weights of {names}, and they are {len(set(tie.parameters))} tensors now: training moves them apart"
    return f"the base model ties the weights of {names}, and only {quoted(tie.adapted)} carries an adapter"


def _suggestion(tie: Tie, structure: Structure) -> dict[str, Any]:
    """Both sides in the field that names one of them, and tied."""
    leaves = [name.rpartition(".")[2] for name in tie.names]
    for adapter in structure.adapters:
        for field in ("modules_to_save", "target_modules"):
            named = [target.entry for target in entries(adapter, field)]
            around = [name for target in entries(adapter, field) for name in target.names]
            if any(side.startswith(f"{name}.") for side in tie.names for name in around):
                return {}  # a module that holds a side is in the field as a whole: its parts cannot be as well
            if set(leaves) & {name.rpartition(".")[2] for name in named} and takes_tying(adapter, field):
                tied = {field: list(dict.fromkeys((*named, *leaves))), "ensure_weight_tying": True}
                return _not_adapted_as_well(tied, leaves, adapter) if field == "modules_to_save" else _unless_in_place(tied, named, adapter)
    return {}


def _not_adapted_as_well(fields: dict[str, Any], leaves: list[str], adapter: AdapterInfo) -> dict[str, Any]:
    """What is trained in full cannot carry an adapter: it is left out of the targets."""
    asked = [target.entry for target in entries(adapter, "target_modules")]
    kept = [entry for entry in asked if entry.rpartition(".")[2] not in leaves]
    if kept == asked:
        return fields
    return {**fields, "target_modules": kept} if kept and is_list(adapter, "target_modules") else {}


def _unless_in_place(fields: dict[str, Any], named: list[str], adapter: AdapterInfo) -> dict[str, Any]:
    """Nothing where every side is among the targets already and other limits, such as layers_to_transform, keep one of them out."""
    return {} if set(fields["target_modules"]) == set(named) and adapter.config.get("layers_to_transform") is not None else fields


def broken() -> Example:
    """A trained copy of the head, whose weights are the embedding's."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"])
    return Example(get_peft_model(tiny_llama(tie_word_embeddings=True), config), text_batch())


def fixed() -> Example:
    """Both sides, kept tied."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head", "embed_tokens"], ensure_weight_tying=True)
    return Example(get_peft_model(tiny_llama(tie_word_embeddings=True), config), text_batch())


RULE = Rule(
    "PI111",
    "untied-weights",
    Severity.WARNING,
    over=Structure,
    check=check,
    broken=broken,
    fixed=fixed,
    gives_way_to=("PI203",),
    because="Where a tied twin runs in the place of what carries the adapter, the adapter belongs on the twin.",
)
