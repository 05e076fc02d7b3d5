"""The router of a mixture of experts carries an adapter.

The router decides which expert sees which token. Small changes of its weights send tokens to experts that
never saw their like, so the routing is usually left as it was trained; an adapter lands there because
`all-linear` or a name such as `gate` includes it.

Leave the router out of the targets. Where the routing is to be trained, ignore this rule with that reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from peft_inspect.records import AdapterInfo, AdapterLayerInfo, ConfigEntry, Finding, Severity, Structure, modules_of
from peft_inspect.rules.entries import adapters_with_targets, entries, is_shorthand
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import counted, quoted, setting_fix


def check(structure: Structure) -> Iterator[Finding]:
    """Per adapter, the layers that are routers or lie within one."""
    routers = {module.path for module in structure.modules if module.routes}
    for adapter in adapters_with_targets(structure):
        rows = [row for row in structure.adapter_layers if row.adapter == adapter.name and _within(row.path, routers)]
        if rows:
            suggestion = _suggestion(adapter, rows, structure)
            yield RULE.finding(
                f"adapter {adapter.name!r} trains {counted(len(modules_of(rows)), 'router')}: {quoted(dict.fromkeys(map(_kind, rows)))}, which choose "
                "the experts of each token",
                modules_of(rows),
                adapter=adapter.name,
                facts={"routers": sorted({_kind(row) for row in rows})},
                suggestion=suggestion,
                fix=setting_fix(suggestion, "leave the router out of target_modules and target_parameters"),
            )


def _within(path: str, routers: set[str]) -> bool:
    return path in routers or path.rpartition(".")[0] in routers


def _kind(row: AdapterLayerInfo) -> str:
    """The name of a router without its place: `mlp.gate`."""
    return ".".join(part for part in row.name.split(".")[-3:] if not part.isdecimal() and part != "layers")


def _suggestion(adapter: AdapterInfo, rows: list[AdapterLayerInfo], structure: Structure) -> dict[str, Any]:
    """The names of everything else that is adapted; a name that routers share with other layers is excluded by their paths."""
    routed = {row.path for row in rows}
    others = [row for row in structure.adapter_layers if row.adapter == adapter.name and row.path not in routed]
    modules = [_leaf(row.name) for row in others if row.parameter_name is None]
    parameters = [f"{_leaf(row.name)}.{row.parameter_name}" for row in others if row.parameter_name is not None]
    asked = entries(adapter, "target_modules")
    if not others:
        return {}
    if asked and not any(is_shorthand(target) for target in asked) and not any(row.parameter_name for row in rows):
        modules = _without_routers([target for target in asked if target.matched], routed) or modules
    fields: dict[str, Any] = {"target_modules": list(dict.fromkeys(modules))}
    if parameters or entries(adapter, "target_parameters"):
        fields["target_parameters"] = list(dict.fromkeys(parameters)) or None
    if {_leaf(row.name) for row in rows if row.parameter_name is None}.intersection(modules):
        fields["exclude_modules"] = "|".join(sorted({rf".*\.{re.escape(_kind(row))}" for row in rows}))
    return fields


def _without_routers(asked: list[ConfigEntry], routed: set[str]) -> list[str]:
    """The user's own entries, if those that reach routers reach nothing else."""
    kept = [target.entry for target in asked if routed.isdisjoint(target.matched)]
    return kept if all(routed.issuperset(target.matched) for target in asked if target.entry not in kept) else []


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _tiny_mixtral() -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
    )
    return MixtralForCausalLM(config).train()


def broken() -> Example:
    """For this model type PEFT takes all-linear to include the router."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(_tiny_mixtral(), LoraConfig(target_modules="all-linear")))


def fixed() -> Example:
    """Attention by its names, the experts by their parameters."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    )
    return Example(get_peft_model(_tiny_mixtral(), config))


RULE = Rule("PI106", "router-adapted", Severity.WARNING, over=Structure, check=check, broken=broken, fixed=fixed)
