"""Both factors of an adapter pair are zero: the pair can never leave zero.

The gradient of each factor is a product with the other one. LoRA starts with one factor at
random and the other at zero, so that training begins with no change and can move. When both are
zero (a failed initialisation, weights restored from an empty checkpoint), neither ever moves.

Initialise again: `reset_lora_parameters(adapter, init_lora_weights=True)`.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import AdapterLayerInfo, Finding, Origin, Remedy, Severity, Structure, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule, Symptom, Tier
from peft_inspect.rules.words import counted

_VECTORS = frozenset({"VERA", "RANDLORA"})  # they train vectors that scale frozen random matrices on both sides


def check(structure: Structure) -> Iterator[Finding]:
    """Active layers all of whose factors are zero."""
    layers = [layer for layer in structure.adapter_layers if layer.active and _all_zero(structure, layer)]
    if layers:
        config = Origin("adapter-config", ("init_lora_weights", "init_weights", "d_initial"), layers[0].adapter, exact=True)
        yield RULE.finding(
            f"both factors of {counted(len(modules_of(layers)), 'adapter layer')} hold only zeros: no gradient can ever move them",
            modules_of(layers),
            zero=True,
            origin=Origin("written", otherwise=config),
            fix="initialise the adapter again: one factor at random, the other at zero (init_lora_weights=True), and have nothing that "
            "initialises or loads the model after the wrapping write into it",
            remedy=Remedy.INITIALISE,
        )


def _all_zero(structure: Structure, layer: AdapterLayerInfo) -> bool:
    """Whether all matrices are zero, or all vectors where these multiply each other."""
    weights = [structure.parameter[path] for path in layer.parameters]
    factors = [weight for weight in weights if len(weight.shape) > 1]
    vectors = [weight for weight in weights if weight.requires_grad] if layer.tuner in _VECTORS else []
    return any(len(group) > 1 and all(weight.zero for weight in group) for group in (factors, vectors))


def broken() -> Example:
    """Weights restored as zeros."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.zero_()
    return Example(model, text_batch())


def fixed() -> Example:
    """PEFT's own initialisation."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])), text_batch())


RULE = Rule(
    "PI312",
    "dead-initialisation",
    Severity.ERROR,
    over=Structure,
    check=check,
    broken=broken,
    fixed=fixed,
    tier=Tier.CAUSE,
    symptom=Symptom.ZERO_GRADIENT,
    needs_values=True,
)
