"""Blocks of a kind carry no adapter while their siblings do.

In a hybrid model the usual attention names reach a few layers out of many: the mamba mixers, whose
projections go by other names, stay as they were. And where two towers are adapted, the list written for
one (`o_proj`) leaves the same layer of the other (`out_proj`) out.

Add the names of the other kind of block. Layers whose weights the model reads itself, as fused mamba
kernels do with `out_proj`, cannot be adapted and are not suggested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from peft_inspect.records import AdapterInfo, Coverage, Finding, Origin, Severity, Structure
from peft_inspect.rules.entries import adapters_with_targets, entries, is_feed_forward, is_list, is_shorthand, names_layers, within
from peft_inspect.rules.pi103_adapters_in_several_towers import one_tower
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import quoted, ranges, setting_fix


def check(structure: Structure) -> Iterator[Finding]:
    """Kinds of mixers without adapters in a stack, then layers of an adapted tower that go by another name there."""
    for adapter in adapters_with_targets(structure):
        targets = entries(adapter, "target_modules")
        if not targets or _picks_blocks(adapter):
            continue
        mixers = [row for row in _mixers(structure) if not _excluded(row, adapter)]
        uncovered = [*mixers, *(row for row in _other_names(structure) if not _excluded(row, adapter))]
        if uncovered:
            suggestion = _suggestion(adapter, uncovered)
            one = None if mixers else one_tower(adapter, structure)  # what PI103 says as well
            fix = setting_fix(suggestion, "add the names of these layers to target_modules, where an adapter can run on them")
            yield RULE.finding(
                f"adapter {adapter.name!r} leaves out " + "; ".join(_said(uncovered)),
                (path for row in uncovered for path in row.layers if path not in row.adapted),
                adapter=adapter.name,
                facts={
                    "uncovered": {row.name: {"part": row.part, "tower": row.tower, "layers": len(row.layers)} for row in uncovered},
                },
                suggestion=one or suggestion,
                origin=Origin("adapter-config", ("target_modules",), adapter.name),
                fix=f"{setting_fix(one, '')} to adapt one tower alone; to adapt all of them, {fix}" if one else fix,
            )


def _picks_blocks(adapter: AdapterInfo) -> bool:
    """Whether the config says which blocks it wants."""
    named = any(names_layers(target) for target in entries(adapter, "target_modules") if not is_shorthand(target))
    return named or adapter.config.get("layers_to_transform") is not None


def _excluded(row: Coverage, adapter: AdapterInfo) -> bool:
    """Whether exclude_modules names these layers, as PEFT reads it, be they among the targets or not."""
    fields = entries(adapter, "exclude_modules")
    endings = [target.entry for target in fields if not target.regex]
    patterns = [re.compile(target.entry) for target in fields if target.regex]
    names = [within(adapter, path) for path in row.layers]
    return all(
        any(f".{name}".endswith(f".{ending}") for ending in endings) or any(pattern.fullmatch(name) for pattern in patterns)
        for name in names
    )


def _rows(structure: Structure) -> Iterator[Coverage]:
    return (row for row in structure.coverage if row.stack and row.kind == "linear" and not row.routes and not row.head)


def _mixers(structure: Structure) -> Iterator[Coverage]:
    """Rows of mixers without any adapter, in blocks that have no adapted mixer either."""
    rows = [row for row in _rows(structure) if not is_feed_forward(row)]
    for stack in dict.fromkeys(row.stack for row in rows):
        here = [row for row in rows if row.stack == stack]
        covered = {row.part for row in here if row.adapted}
        reached = {index for row in here if row.part in covered for index in row.indices}
        if covered:
            yield from (row for row in here if row.part not in covered and not reached.issuperset(row.indices))


def _other_names(structure: Structure) -> Iterator[Coverage]:
    """Rows of a partly adapted part whose names no fully adapted part of another tower has."""
    parts: dict[tuple[str, str], list[Coverage]] = {}
    for row in _rows(structure):
        parts.setdefault((row.tower, row.part), []).append(row)
    full = {key: {_leaf(row) for row in rows} for key, rows in parts.items() if all(row.adapted for row in rows)}
    for (tower, _), rows in parts.items():
        adapted = {_leaf(row) for row in rows if row.adapted}
        models = [names for (other, _), names in full.items() if other != tower and adapted and adapted < names]
        if not is_feed_forward(rows[0]) and models:
            yield from (row for row in rows if not row.adapted and all(_leaf(row) not in names for names in models))


def _leaf(row: Coverage) -> str:
    return row.name.rpartition(".")[2]


def _said(uncovered: Iterable[Coverage]) -> Iterator[str]:
    parts: dict[tuple[str, str], list[Coverage]] = {}
    for row in uncovered:
        parts.setdefault((row.stack, row.part), []).append(row)
    for (stack, part), rows in parts.items():
        indices = {index for row in rows for index in row.indices}
        share = sum(row.parameters for row in rows)
        yield f"{quoted(dict.fromkeys(map(_leaf, rows)))} of {part} in {stack} (blocks {ranges(indices)}; {share:,} parameters)"


def _suggestion(adapter: AdapterInfo, uncovered: list[Coverage]) -> dict[str, Any]:
    if not is_list(adapter, "target_modules"):
        return {}
    names = list(dict.fromkeys(_leaf(row) for row in uncovered if not row.read))
    asked = [target.entry for target in entries(adapter, "target_modules")]
    return {"target_modules": list(dict.fromkeys((*asked, *names)))} if names else {}


def _tiny_jamba() -> Any:
    from transformers import JambaConfig, JambaForCausalLM

    config = JambaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        attn_layer_period=4,
        attn_layer_offset=1,
        num_experts=1,
        num_experts_per_tok=1,
        mamba_d_state=4,
        mamba_dt_rank=2,
        use_mamba_kernels=False,
        pad_token_id=0,
    )
    return JambaForCausalLM(config).train()


def broken() -> Example:
    """Attention names on a model that is mostly mamba."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(_tiny_jamba(), LoraConfig(target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])))


def fixed() -> Example:
    """The input projection of the mamba mixers as well."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(_tiny_jamba(), LoraConfig(target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "in_proj"])))


RULE = Rule("PI104", "uncovered-block-type", Severity.WARNING, over=Structure, check=check, broken=broken, fixed=fixed)
