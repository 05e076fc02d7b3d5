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

from peft_inspect.records import AdapterInfo, ConfigEntry, Coverage, Finding, Severity, Structure
from peft_inspect.rules.entries import entries, expert_entries, is_feed_forward, is_shorthand, with_parameters
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import counted, quoted, setting_fix

_MOST = 0.5  # of the weights of a stack of blocks


def check(structure: Structure) -> Iterator[Finding]:
    """Stacks whose experts are most of their weights and carry no adapter; then what PEFT's rewriting left out."""
    if not structure.adapter_layers:
        return
    experts = [row for stack in _stacks(structure) for row in _unreached(structure, stack)]
    asked = next((adapter for adapter in structure.adapters if adapter.targets), None)
    if experts and asked is not None:
        suggestion = with_parameters(asked, expert_entries(experts))
        total = sum(row.parameters for row in structure.coverage)
        held = sum(row.parameters for row in experts)
        yield RULE.finding(
            f"no adapter reaches the experts: {quoted(expert_entries(experts))} hold {held:,} parameters, {held / total:.0%} of the "
            "weights of the model's layers, and are no modules that target_modules could match",
            (path for row in experts for path in row.layers),
            facts={"parameters": held, "share": round(held / total, 4)},
            suggestion=suggestion,
            fix=setting_fix(suggestion, ""),
            severity=None if _wanted(structure) else Severity.NOTE,
        )
    for adapter in structure.adapters:
        yield from _rewritten(adapter)


def _wanted(structure: Structure) -> bool:
    """Whether any entry asks for more of the blocks than mixers: attention names leave the feed-forward part alone on purpose."""
    asked = [target for adapter in structure.adapters for target in entries(adapter, "target_modules")]
    in_blocks = [row for row in structure.coverage if row.stack]
    mixers = {_leaf(row.name) for row in in_blocks if row.kind == "linear" and not is_feed_forward(row)}
    outside = {_leaf(row.name) for row in structure.coverage if not row.stack}.difference(_leaf(row.name) for row in in_blocks)
    return any(is_shorthand(target) or not (mixers | outside).issuperset(_leaves(target)) for target in asked)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _leaves(target: ConfigEntry) -> set[str]:
    return {_leaf(name) for name in target.names or target.closest} or {target.entry}


def _stacks(structure: Structure) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.stack for row in structure.coverage if row.kind == "experts"))


def _unreached(structure: Structure, stack: str) -> list[Coverage]:
    """The expert rows of a stack of whose weights they are the most, where an adapter reaches none of them."""
    here = [row for row in structure.coverage if row.stack == stack]
    experts = [row for row in here if row.kind == "experts" and not row.routes]
    most = sum(row.parameters for row in experts) > _MOST * sum(row.parameters for row in here)
    return experts if most and not any(row.adapted for row in experts) else []


def _rewritten(adapter: AdapterInfo) -> Iterator[Finding]:
    targets: list[ConfigEntry] = [
        target for target in (*entries(adapter, "target_modules"), *entries(adapter, "target_parameters")) if target.rewritten
    ]
    paths = tuple(dict.fromkeys(path for target in targets for path in target.rewritten))
    if any(target.matched for target in targets) and paths:
        suggestion = with_parameters(adapter, sorted({f"{_leaf(path)}.weight" for path in paths}))
        yield RULE.finding(
            f"adapter {adapter.name!r}: PEFT rewrote {quoted(target.entry for target in targets)} for the fused experts, so that "
            f"{counted(len(paths), 'dense or shared-expert layer')} of these names carry no adapter",
            paths,
            adapter=adapter.name,
            facts={
                "entries": [target.entry for target in targets],
                "layers": len(paths),
            },
            suggestion=suggestion,
            fix=setting_fix(suggestion, ""),
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
