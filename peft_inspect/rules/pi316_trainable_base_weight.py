"""Base weights inside the wrapped model are trainable though the config does not say so.

Wrapping freezes the base model. A loop that unfreezes too much afterwards trains base weights along, with
their optimizer states, and they are not saved with the adapter: the reloaded model is another one.

Freeze them again, or say so in the config: `modules_to_save`, `bias`, `trainable_token_indices`.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Origin, ParameterInfo, Severity, Structure
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import agreed, counted, quoted


def check(structure: Structure) -> Iterator[Finding]:
    """Trainable base weights beside the biases that the config trains and the new modules that the user trains."""
    if not structure.adapter_layers:
        return
    biases = _trained_biases(structure)
    weights = [
        p for p in structure.parameters if p.role == "base" and p.requires_grad and p.path not in biases and not _is_fresh(p, structure)
    ]
    if weights:
        elements = sum(weight.numel for weight in weights)
        modules = tuple(dict.fromkeys(weight.module for weight in weights))
        yield RULE.finding(
            f"{counted(len(weights), 'base weight')} ({counted(elements, 'parameter')}) in {counted(len(modules), 'module')} "
            f"{agreed(len(weights), 'requires', 'require')} a gradient, and no config asks for that: "
            f"{quoted((weight.path for weight in weights), 3)}",
            modules,
            facts={"parameters": elements, "tensors": len(weights)},
            origin=Origin("unfrozen"),
            fix="freeze them after wrapping (requires_grad_(False)), or list their modules in modules_to_save so that they are saved",
        )


def _is_fresh(weight: ParameterInfo, structure: Structure) -> bool:
    module = structure.module.get(weight.module)
    return module is not None and module.fresh


def _trained_biases(structure: Structure) -> frozenset[str]:
    """What `bias="all"` and `bias="lora_only"` train."""
    modes = {str(adapter.config.get("bias", "none")) for adapter in structure.adapters}
    biases = {p.path: p.module for p in structure.parameters if p.path.rpartition(".")[2] == "bias"}
    if "all" in modes:
        return frozenset(biases)
    if any(mode.endswith("_only") for mode in modes):
        bases = {layer.base_path for layer in structure.adapter_layers}
        return frozenset(path for path, module in biases.items() if module in bases)
    return frozenset()


def broken() -> Example:
    """A loop that unfreezes by name, and catches more than it should."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    for name, parameter in model.named_parameters():
        if "q_proj" in name:
            parameter.requires_grad = True
    return Example(model, text_batch())


def fixed() -> Example:
    """What is to be trained in full is in the config."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"])), text_batch())


RULE = Rule(
    "PI316",
    "trainable-base-weight",
    Severity.WARNING,
    over=Structure,
    check=check,
    broken=broken,
    fixed=fixed,
    gives_way_to=("PI406",),
    because="A new module that is trained and was not saved is meant to be trained.",
)
