"""The optimizer does not hold trainable adapter parameters.

An optimizer built before the wrapping holds the old parameters, which are frozen now; one built from a
filtered list may miss the new ones, and a generator of parameters that was counted first has none left for the
optimizer. The gradients are there and no step uses them.

Build the optimizer after wrapping, from a list of all parameters that require a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Origin, ParameterInfo, Severity, Structure
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.updates import is_for_another
from peft_inspect.rules.words import agreed, counted, quoted

_ALL = "[p for p in model.parameters() if p.requires_grad]"


def check(structure: Structure) -> Iterator[Finding]:
    """Trainable weights of adapters, trained copies included, that no parameter group contains."""
    held = structure.optimizer or frozenset()
    trainable = [p for p in structure.parameters if p.role in ("adapter", "saved") and p.requires_grad and p.path not in structure.averages]
    missing = [parameter for parameter in trainable if parameter.path not in held]
    if missing and not is_for_another(structure):
        paths = {parameter.path for parameter in missing}
        layers = [layer.path for layer in structure.adapter_layers if not paths.isdisjoint(layer.parameters)]
        copies = [parameter.module for parameter in missing if parameter.role == "saved"]
        why, fix = _why(structure, missing, len(trainable))
        yield RULE.finding(
            f"the optimizer holds {len(trainable) - len(missing)} of {len(trainable)} trainable adapter parameters: {why}",
            (*layers, *copies),
            source=structure.optimizer_by,
            facts={"trainable": len(trainable), "missing": len(missing), "held": len(held)},
            origin=Origin("optimizer"),
            fix=fix,
        )


def _why(structure: Structure, missing: list[ParameterInfo], trainable: int) -> tuple[str, str]:
    """What the optimizer was made of instead, or what it misses; and what to do."""
    made, held = structure.optimizer_made, structure.optimizer or frozenset()
    if made is not None and made.used_up is not None:
        read = f"the generator of parameters ({made.used_up}) had nothing left when the optimizer read it"
        return read, f"make a list of it, which can be read more than once: {_ALL}"
    if made is not None and made.wrapped is not None:
        return f"it is older than the adapter ({made.wrapped})", f"build the optimizer after wrapping, from {_ALL}"
    names = sorted({parameter.path.split(f".{parameter.adapter}")[0].rpartition(".")[2] for parameter in missing})
    if len(missing) < trainable:
        return (
            f"{quoted(names)} {agreed(len(names), 'is', 'are')} missing",
            f"give the optimizer these parameters too: build it from {_ALL}",
        )
    if not held:
        return "none of what it holds is this model's", f"give the optimizer the adapter's parameters: build it after wrapping, from {_ALL}"
    if not any(structure.parameter[path].requires_grad for path in held):
        holds = f"all {counted(len(held), 'parameter')} of the model that it holds {agreed(len(held), 'is', 'are')} frozen"
        return f"{holds}, as those are that were collected before the wrapping", f"build the optimizer after wrapping, from {_ALL}"
    others = sorted({structure.parameter[path].module or path for path in held})
    return f"it holds only those of {quoted(others)}", f"give the optimizer the adapter's parameters too: build it from {_ALL}"


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
