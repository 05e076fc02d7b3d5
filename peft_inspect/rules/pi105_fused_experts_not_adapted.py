"""Most of the weights of a mixture of experts are expert parameters that no adapter reaches.

Since transformers 5 the experts of most models are stacked in a few parameters. There is no `nn.Linear`
for `target_modules` to match, `all-linear` included, so LoRA lands on attention alone. For some model
types PEFT rewrites the old names (`gate_proj`, `w1` …) into these parameters, and then the dense and
shared-expert layers that still go by those names are left out instead.

Name the parameters in `target_parameters`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peft_inspect.records import Finding, Origin, Severity, Structure
from peft_inspect.rules.entries import expert_entries, with_parameters
from peft_inspect.rules.moe import asks_for_experts, rewritten_layers, suggestion, unreached_experts
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import counted, quoted, setting_fix


def check(structure: Structure) -> Iterator[Finding]:
    """Stacks whose experts are most of their weights and carry no adapter; then what PEFT's rewriting left out."""
    if not structure.adapter_layers:
        return
    experts = unreached_experts(structure)
    asked = next((adapter for adapter in structure.adapters if adapter.targets), None)
    if experts and asked is not None:
        wanted = asks_for_experts(structure)
        fields = suggestion(asked, structure) if wanted else with_parameters(asked, expert_entries(experts))
        total = sum(row.parameters for row in structure.coverage if row.kind != "parameter")
        held = sum(row.parameters for row in experts)
        yield RULE.finding(
            f"no adapter reaches the experts: {quoted(expert_entries(experts))} hold {held:,} parameters, {held / total:.0%} of the "
            "weights of the model's layers, and are no modules that target_modules could match",
            (path for row in experts for path in row.layers),
            facts={"parameters": held, "share": round(held / total, 4)},
            suggestion=fields,
            origin=Origin("adapter-config", ("target_parameters", "target_modules"), asked.name),
            fix=setting_fix(fields, ""),
            severity=None if wanted else Severity.NOTE,
        )
    for adapter in structure.adapters:
        targets, paths = rewritten_layers(adapter)
        if paths:
            fields = suggestion(adapter, structure)
            yield RULE.finding(
                f"adapter {adapter.name!r}: PEFT rewrote {quoted(target.entry for target in targets)} for the fused experts, so that "
                f"{counted(len(paths), 'dense or shared-expert layer')} of these names carry no adapter",
                paths,
                adapter=adapter.name,
                facts={"entries": [target.entry for target in targets], "layers": len(paths)},
                suggestion=fields,
                origin=Origin("adapter-config", ("target_modules",), adapter.name),
                fix=setting_fix(fields, ""),
            )


def _tiny_gpt_oss() -> Any:
    from transformers import GptOssConfig, GptOssForCausalLM

    config = GptOssConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        pad_token_id=0,
    )
    return GptOssForCausalLM(config).train()


def broken() -> Example:
    """All linear layers, of which the experts are none."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(_tiny_gpt_oss(), LoraConfig(target_modules="all-linear")))


def fixed() -> Example:
    """The experts by the names of their parameters."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules="all-linear", target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])
    return Example(get_peft_model(_tiny_gpt_oss(), config))


RULE = Rule(
    "PI105",
    "fused-experts-not-adapted",
    Severity.WARNING,
    over=Structure,
    check=check,
    broken=broken,
    fixed=fixed,
    gives_way_to=("PI101",),
    because="An entry that reached nothing may have been meant for the experts.",
)
