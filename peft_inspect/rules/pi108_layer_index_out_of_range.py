"""`layers_to_transform` names layers that the model does not have.

The indices come from a config for a deeper model, or count from one, or from the end. PEFT compares them
with the numbers in the module paths and passes over those that never occur, so fewer layers are adapted
than the config lists.

List indices of this model; they start at 0.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Origin, Severity, Structure
from peft_inspect.rules.entries import adapters_with_targets, entries
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import ranges, setting_fix


def check(structure: Structure) -> Iterator[Finding]:
    """Per adapter, the indices for which there is no block."""
    for adapter in adapters_with_targets(structure):
        indices = entries(adapter, "layers_to_transform")
        beyond = [target for target in indices if not target.matched and not target.missed and target.entry not in target.closest]
        if beyond:
            existing = [int(index) for index in beyond[0].closest]
            suggestion = {"layers_to_transform": [int(target.entry) for target in indices if target not in beyond]}
            yield RULE.finding(
                f"adapter {adapter.name!r}: layers_to_transform names {ranges(int(target.entry) for target in beyond)}, and the model's "
                f"layers are {ranges(existing)}",
                adapter=adapter.name,
                facts={
                    "out_of_range": [int(target.entry) for target in beyond],
                    "layers": ranges(existing),
                },
                suggestion=suggestion if suggestion["layers_to_transform"] else {},
                origin=Origin("adapter-config", ("layers_to_transform",), adapter.name),
                fix=setting_fix(suggestion, "list indices of this model"),
            )


def broken() -> Example:
    """Indices of a model of thirty-two layers, on one of two."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"], layers_to_transform=[1, 30, 31])), text_batch())


def fixed() -> Example:
    """The last layer of this model."""
    from peft import LoraConfig, get_peft_model

    return Example(get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"], layers_to_transform=[1])), text_batch())


RULE = Rule("PI108", "layer-index-out-of-range", Severity.ERROR, over=Structure, check=check, broken=broken, fixed=fixed)
