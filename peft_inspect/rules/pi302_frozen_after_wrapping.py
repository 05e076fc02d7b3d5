"""The weights of an active adapter do not require gradients, though its config trains.

A loop that freezes the backbone, or `prepare_model_for_kbit_training`, ran after
`get_peft_model`: the adapter's parameters are among the model's, and were frozen with them.
A frozen teacher that only runs without gradients, beside the trained model it is a copy of, is no fault, nor is an old adapter under a new one that trains.

Freeze before wrapping (`get_peft_model` freezes the base model anyway), or skip names that
contain `lora_`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from peft_inspect.records import Finding, Origin, Remedy, Severity, Unexplained, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import passed_by


def check(left: Unexplained) -> Iterator[Finding]:
    """Active, frozen layers of adapters whose config trains."""
    trace = left.trace
    inference = {adapter.name for adapter in trace.structure.adapters if adapter.inference_mode}
    frozen = [layer for layer in left.dead if layer.adapter not in inference and not trace.structure.trainable(layer)]
    copies = tuple(
        f"{copy.copy}." for copy in trace.copies if copy.copy is not None
    )  # that they ran is the fault, not that they are frozen
    layers = [layer for layer in frozen if not trace.kept_frozen(layer) and not f"{layer.path}.".startswith(copies)]
    modules = (*modules_of(layers), *_frozen_copies(left, inference))
    if modules:
        yield RULE.finding(
            f"something froze {passed_by(trace.structure, modules)} after the wrapping: requires_grad is False, though the config is one for training",
            modules,
            origin=Origin("frozen"),
            fix="freeze before get_peft_model, or leave parameters with 'lora_' in their name out of the loop that freezes",
            remedy=Remedy.UNFREEZE,
        )


def _frozen_copies(left: Unexplained, inference: Collection[str]) -> tuple[str, ...]:
    """Modules in `modules_to_save` of active adapters whose copy does not train; those of a teacher and of rules before are left alone."""
    trace, left_alone = left.trace, left.trace.references | left.explained
    paths = {
        (adapter.owner, adapter.name)
        for adapter in trace.structure.adapters
        for layer in trace.structure.adapter_layers
        if adapter.active and layer.adapter == adapter.name and layer.path not in left_alone and _in(layer.path, adapter.owner)
    }
    copies: dict[str, bool] = {}
    for parameter in trace.structure.parameters:
        module = parameter.path.partition(".modules_to_save.")[0]
        of_active = any(parameter.adapter == name and _in(module, owner) for owner, name in paths)
        if parameter.role == "saved" and of_active and parameter.adapter not in inference and module not in left_alone:
            copies[module] = copies.get(module, False) or parameter.requires_grad
    return tuple(module for module, trains in copies.items() if not trains)


def _in(path: str, owner: str) -> bool:
    return not owner or path.startswith(f"{owner}.")


def broken() -> Example:
    """Freeze the backbone, adapters included."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    for parameter in model.parameters():
        parameter.requires_grad = False
    return Example(model, text_batch())


def fixed() -> Example:
    """Freeze everything but the adapters."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name
    return Example(model, text_batch())


RULE = Rule(
    "PI302",
    "frozen-after-wrapping",
    Severity.ERROR,
    over=Unexplained,
    check=check,
    broken=broken,
    fixed=fixed,
    gives_way_to=("PI205", "PI207", "PI301"),
    because="Disabling adapters, leaving one inactive and loading for inference freeze as well.",
)
