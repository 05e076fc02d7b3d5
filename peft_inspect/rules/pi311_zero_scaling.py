"""The adapter's scaling is zero.

The output of an adapter is multiplied by `scaling`, which is `lora_alpha / r` (or a weight
given to the adapter). With `lora_alpha=0` the adapter changes nothing, and every gradient is
zero.

Set `lora_alpha` above zero; twice the rank is common.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Origin, Remedy, Severity, Structure, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule, Symptom, Tier
from peft_inspect.rules.words import counted


def check(structure: Structure) -> Iterator[Finding]:
    """Active layers with a scaling of exactly zero."""
    layers = [layer for layer in structure.adapter_layers if layer.active and layer.scaling == 0]
    if layers:
        yield RULE.finding(
            f"the scaling of {counted(len(modules_of(layers)), 'adapter layer')} is zero: the adapter changes nothing and gets gradients of zero",
            modules_of(layers),
            zero=True,
            facts={"lora_alpha": sorted({layer.lora_alpha for layer in layers if layer.lora_alpha is not None})},
            origin=Origin("adapter-config", ("lora_alpha", "alpha_pattern"), layers[0].adapter, exact=True),
            fix="set lora_alpha above zero (2 * r is common), or give the adapter a weight that is not zero",
            remedy=Remedy.SCALING,
        )


def broken() -> Example:
    """lora_alpha=0."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"], lora_alpha=0)), text_batch())


def fixed() -> Example:
    """lora_alpha=16."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"], lora_alpha=16)), text_batch())


RULE = Rule(
    "PI311",
    "zero-scaling",
    Severity.ERROR,
    over=Structure,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.CAUSE,
    symptom=Symptom.ZERO_GRADIENT,
)
