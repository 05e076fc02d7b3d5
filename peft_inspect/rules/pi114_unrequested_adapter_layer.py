"""Adapter layers that no current config asks for.

`get_peft_model` changes the base model in place. A second call, as when a notebook cell is run again
with other targets, adds to what the first one left: the old layers stay in, trained and saved with the new.

Reload the base model, or call `model.unload()` first, which returns it without adapters.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import Finding, Origin, Severity, Structure, modules_of
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import agreed, counted, quoted


def check(structure: Structure) -> Iterator[Finding]:
    """Per adapter, the layers that its config does not reach."""
    for name in dict.fromkeys(layer.adapter for layer in structure.adapter_layers if not layer.asked):
        rows = [layer for layer in structure.adapter_layers if layer.adapter == name and not layer.asked]
        kinds = dict.fromkeys(row.name.rpartition(".")[2] for row in rows)
        known = name in {adapter.name for adapter in structure.adapters}
        why = "its config does not ask for this" if known else "no config of this name is left"
        yield RULE.finding(
            f"{counted(len(modules_of(rows)), 'layer')} of adapter {name!r} ({quoted(kinds)}) {agreed(len(modules_of(rows)), 'is', 'are')} left from an earlier wrapping: {why}",
            modules_of(rows),
            facts={"adapter": name, "names": list(kinds), "trainable": any(structure.trainable(row) for row in rows)},
            origin=Origin("added"),
            fix="reload the base model before get_peft_model, or take the old adapter out with model = model.unload()",
        )


def broken() -> Example:
    """The cell that wraps the model ran twice, with other targets."""
    from peft import LoraConfig, get_peft_model

    base = tiny_llama()
    get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"]))
    return Example(get_peft_model(base, LoraConfig(target_modules=["o_proj"])), text_batch())


def fixed() -> Example:
    """The first adapter is taken out before."""
    from peft import LoraConfig, get_peft_model

    base = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj", "v_proj"])).unload()
    return Example(get_peft_model(base, LoraConfig(target_modules=["o_proj"])), text_batch())


RULE = Rule(
    "PI114",
    "unrequested-adapter-layer",
    Severity.WARNING,
    over=Structure,
    check=check,
    broken=broken,
    fixed=fixed,
    gives_way_to=("PI115", "PI116"),
    because="The layers of another PeftModel over the same base are asked for there.",
)
