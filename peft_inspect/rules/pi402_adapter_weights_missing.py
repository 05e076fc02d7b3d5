"""Adapter layers for which the adapter file has no tensor.

PEFT leaves them as they were initialised, with a warning at most: these layers do nothing, or
start again from the beginning. It happens when the file was filtered or saved by one process of
several, or when the config was changed after the training.

Save the adapter again from the trained model, or take these modules out of the config.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft_inspect.records import AdapterFile, Finding, Severity
from peft_inspect.rules.adapter_examples import adapted, saved
from peft_inspect.rules.adapter_match import (
    Match,
    adapter_layers,
    adapter_paths,
    blocks_of,
    field_of,
    incomparable,
    loaded,
    match,
    of_a_shallower_base,
    only_later_blocks,
    weight_of,
)
from peft_inspect.rules.examples import text_batch
from peft_inspect.rules.key_mapping import renaming
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import agreed, counted, settings


def check(file: AdapterFile) -> Iterator[Finding]:
    """Keys of adapter layers without a tensor, except those that tensors under another name are for."""
    fit = match(file)
    if not (fit.placed or fit.mismatched) or fit.other_width or of_a_shallower_base(file, fit):
        return  # nothing of the file was recognised, or it is for another base: neither is about single layers
    renamed = set(renaming(fit.unplaced, fit.missing, file).places.values())
    built = adapter_paths(file)
    missing = [key for key in fit.missing if key not in renamed and file.layer_of[key] in built]
    if missing:
        layers = adapter_layers(missing, file)
        yield RULE.finding(
            f"{file.path} lacks {len(missing)} of {len(file.expected)} tensors: {counted(len(layers), 'adapter layer')} {agreed(len(layers), 'stays', 'stay')} as initialised",
            layers,
            facts={"file": file.path, "missing": len(missing), "keys": missing[:8]},
            fix=_fix(missing, fit, file),
        )


def _fix(missing: list[str], fit: Match, file: AdapterFile) -> str:
    """Weights of a sort that the file holds for no layer were not trained: the config asks for more than there was."""
    held = {file.layer_of[loaded(tensor)] for tensor in fit.placed}
    fields = {field: False for key in missing if (field := field_of(weight_of(key, file)))}
    if fields and held.issuperset(file.layer_of[key] for key in missing) and all(field_of(weight_of(key, file)) for key in missing):
        return f"set {settings(fields)} in adapter_config.json, if the adapter was trained so; else save it again from the trained model"
    if only_later_blocks(fit) and len(missing) == len(fit.missing):
        return (
            f"load it onto a base with {blocks_of(fit.placed)} layers, if it was trained on one: the file has all of these and none of the "
            "later ones; else save the adapter again from the trained model"
        )
    return "save the adapter again from the trained model, or take these modules out of target_modules in adapter_config.json"


def broken() -> Example:
    """A file that was filtered by hand."""
    model = adapted(("q_proj", "v_proj"))
    folder = saved(model, lambda tensors: {key: tensors[key] for key in tensors if "v_proj" not in key})
    return Example(model, text_batch(), adapter=folder)


def fixed() -> Example:
    """The whole adapter."""
    model = adapted(("q_proj", "v_proj"))
    return Example(model, text_batch(), adapter=saved(model))


RULE = Rule(
    "PI402", "adapter-weights-missing", Severity.ERROR, over=AdapterFile, check=check, broken=broken, fixed=fixed, skip=incomparable
)
