"""The router of a mixture of experts carries an adapter.

The router decides which expert sees which token. Small changes of its weights send tokens to experts that
never saw their like, so the routing is usually left as it was trained; an adapter lands there because
`all-linear` or a name such as `gate` includes it.

Leave the router out of the targets. Where the routing is to be trained, ignore this rule with that reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peft_inspect.records import Finding, Origin, Severity, Structure, modules_of
from peft_inspect.rules.entries import adapters_with_targets
from peft_inspect.rules.moe import kind, router_rows, suggestion
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import counted, quoted, setting_fix


def check(structure: Structure) -> Iterator[Finding]:
    """Per adapter, the layers that are routers or lie within one."""
    for adapter in adapters_with_targets(structure):
        if rows := router_rows(structure, adapter):
            fields = suggestion(adapter, structure)
            yield RULE.finding(
                f"adapter {adapter.name!r} trains {counted(len(modules_of(rows)), 'router')}: {quoted(dict.fromkeys(map(kind, rows)))}, which choose "
                "the experts of each token",
                modules_of(rows),
                adapter=adapter.name,
                facts={"routers": sorted({kind(row) for row in rows})},
                suggestion=fields,
                origin=Origin("adapter-config", ("target_modules", "target_parameters"), adapter.name),
                fix=setting_fix(fields, "leave the router out of target_modules and target_parameters"),
            )


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
