"""There is no adapter layer anywhere in the model.

A `LoraConfig` alone does nothing: the call of `get_peft_model` is missing, was commented out, or its
result was dropped while another object goes on to be trained.

Wrap the model: `model = get_peft_model(model, config)`.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Origin, Severity, Structure
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule


def check(structure: Structure) -> Iterator[Finding]:
    """No adapter layer, and no adapter of a kind that works without layers."""
    if not structure.adapter_layers and not any(adapter.prompt_learning for adapter in structure.adapters):
        trainable = sum(parameter.numel for parameter in structure.parameters if parameter.requires_grad)
        other = ", and the adapter that the line shown puts on is on another object" if structure.adapted_by else ""
        trained = " is trained and" if structure.called_by else ""
        yield RULE.finding(
            f"{structure.root_type}{trained} has no adapter layer: none of its {len(structure.modules):,} modules is one{other}",
            source=structure.adapted_by or structure.called_by,
            facts={"modules": len(structure.modules), "trainable": trainable},
            origin=Origin("taken-off"),
            fix="train what the wrapping returns: model = get_peft_model(model, config)"
            if structure.called_by
            else "wrap the model, model = get_peft_model(model, config), and train what it returns; on the command line, "
            "--lora FILE or --target-modules NAMES wraps it for the inspection",
        )


def broken() -> Example:
    """The config is there, and the call is not."""
    return Example(tiny_llama(), text_batch())


def fixed() -> Example:
    """The model is wrapped."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"])), text_batch())


RULE = Rule("PI112", "no-adapter", Severity.ERROR, over=Structure, check=check, broken=broken, fixed=fixed)
