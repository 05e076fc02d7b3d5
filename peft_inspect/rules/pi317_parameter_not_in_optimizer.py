"""The optimizer does not hold trainable adapter parameters.

An optimizer built before the wrapping holds the old parameters, which are frozen now; one built from a
filtered list may miss the new ones. The gradients are there and no step uses them.

Build the optimizer after wrapping, from the parameters that require a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Origin, Severity, Structure
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule


def check(structure: Structure) -> Iterator[Finding]:
    """Trainable weights of adapters, trained copies included, that no parameter group contains."""
    held = structure.optimizer or frozenset()
    trainable = [p for p in structure.parameters if p.role in ("adapter", "saved") and p.requires_grad]
    missing = [parameter for parameter in trainable if parameter.path not in held]
    if missing:
        paths = {parameter.path for parameter in missing}
        layers = [layer.path for layer in structure.adapter_layers if not paths.isdisjoint(layer.parameters)]
        copies = [parameter.module for parameter in missing if parameter.role == "saved"]
        older = ": it is older than the adapter" if structure.optimizer_older else ""
        yield RULE.finding(
            f"the optimizer holds {len(trainable) - len(missing)} of {len(trainable)} trainable adapter parameters{older}",
            (*layers, *copies),
            source=structure.optimizer_by,
            facts={"trainable": len(trainable), "missing": len(missing), "held": len(held)},
            origin=Origin("optimizer"),
            fix="build the optimizer after wrapping, from [p for p in model.parameters() if p.requires_grad]"
            if structure.optimizer_by is None or structure.optimizer_older
            else "give it all that is trained, as a list: [p for p in model.parameters() if p.requires_grad]; a generator is empty once read",
        )


def _skip(structure: Structure) -> str | None:
    if structure.optimizer_unknown is not None:
        return structure.optimizer_unknown
    return "no optimizer was given" if structure.optimizer is None else None


def broken() -> Example:
    """The optimizer is older than the adapter."""
    import torch
    from peft import LoraConfig, get_peft_model

    base = tiny_llama()
    optimizer = torch.optim.SGD(base.parameters(), lr=0.1)
    return Example(get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"])), text_batch(), optimizer=optimizer)


def fixed() -> Example:
    """The optimizer is built from what is trainable."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    return Example(model, text_batch(), optimizer=optimizer)


RULE = Rule("PI317", "parameter-not-in-optimizer", Severity.ERROR, over=Structure, check=check, broken=broken, fixed=fixed, skip=_skip)
