"""Tensors of the adapter file find no place in the model.

PEFT loads the tensors whose keys it knows and says nothing, or only a warning, about the
others: what was trained is not there, and the outputs are those of the base model. It happens
when the adapter was saved from another class or another version of the library (`language_model`
became `model.language_model` in transformers 4.52), from a compiled model (`_orig_mod.`), from a
model that was wrapped once more or once less, or when adapter_config.json lists fewer
`target_modules` than the file holds.

Load the adapter onto the model as it was trained, or rename the keys as the finding shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from peft_inspect.records import AdapterFile, Finding, ModuleInfo, Severity, TensorInfo
from peft_inspect.rules.adapter_examples import adapted, saved
from peft_inspect.rules.adapter_match import Names, adapter_paths, field_of, incomparable, loaded, match, shown
from peft_inspect.rules.examples import text_batch
from peft_inspect.rules.key_mapping import Renaming, renaming
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import quoted, settings


def check(file: AdapterFile) -> Iterator[Finding]:
    """Unplaced tensors: those of modules that the config leaves out, those that a renaming would place, the rest."""
    fit = match(file)
    if not fit.unplaced:
        return
    names, adapted = Names(file), set(file.layer_of.values())
    named = {tensor.key: module for tensor in fit.unplaced if (module := names.module(loaded(tensor)))}
    left_out = {key: module for key, module in named.items() if module.path not in adapted}
    mapping = renaming((tensor for tensor in fit.unplaced if tensor.key not in left_out), fit.missing, file)
    rest = [tensor for tensor in fit.unplaced if tensor.key not in left_out and tensor.key not in mapping.places]
    strange = [found for tensor in rest if (found := names.adapted(loaded(tensor)))]
    facts: dict[str, Any] = {
        "file": file.path,
        "unplaced": len(fit.unplaced),
        "tensors": len(file.tensors),
        "keys": [tensor.key for tensor in fit.unplaced][:8],
    }
    if mapping.places:
        facts |= {"mapping": dict(mapping.rewrites), "would_place": len(mapping.places)}
    if left_out:
        facts["left_out"] = sorted({module.path for module in left_out.values()})
    layers = [file.layer_of[key] for key in mapping.places.values()] + [module.path for module in left_out.values()]
    layers += [path for path, _ in strange] or _flattened(rest, file)
    fixes = (*_fix_of_names(mapping), *_fix_of_targets(left_out), *_fix_of_weights(weight for _, weight in strange))
    yield RULE.finding(_message(fit.unplaced, file, mapping), layers, facts=facts, fix="; ".join(fixes) or _otherwise(layers))


def _message(unplaced: tuple[TensorInfo, ...], file: AdapterFile, mapping: Renaming) -> str:
    first, of = unplaced[0].key, f"{len(unplaced)} of {len(file.tensors)} tensors"
    message = f"{of} in {file.path} find no place in the model, {shown(first)} for one: they are not loaded"
    if mapping.places:
        message += f"; {len(mapping.places)} of them would fit under another name: {_spelt(mapping)}"
    return message


def _spelt(mapping: Renaming) -> str:
    return ", ".join(f"{old!r} → {new!r}" if old else f"{new!r} in front" for old, new in mapping.rewrites.items())


def _fix_of_names(mapping: Renaming) -> Iterator[str]:
    if mapping.places:
        yield (
            "load the adapter onto the class and version that it was trained with, before any other wrapping, "
            f"or rename its keys: {_spelt(mapping)}"
        )


def _fix_of_targets(left_out: Mapping[str, ModuleInfo]) -> Iterator[str]:
    """Modules without an adapter: what the file holds for them tells whether they were adapted or trained in full."""
    leaves = {key: module.path.rpartition(".")[2] for key, module in left_out.items()}
    whole = {leaf for key, leaf in leaves.items() if key.endswith((f"{leaf}.weight", f"{leaf}.bias"))}
    for field, names in (("target_modules", {*leaves.values()} - whole), ("modules_to_save", whole)):
        if names:
            yield f"add {quoted(sorted(names))} to {field} in adapter_config.json"


def _fix_of_weights(weights: Iterable[str]) -> Iterator[str]:
    """Weights that the adapter layers of the model do not have."""
    every = sorted(set(weights))
    fields = {field: True for weight in every if (field := field_of(weight))}
    if every:
        how = f"set {settings(fields)} in adapter_config.json" if fields else "use the adapter_config.json that was saved with this file"
        yield f"the adapter layers have no {quoted(every)}: {how}"


def _flattened(tensors: Iterable[TensorInfo], file: AdapterFile) -> list[str]:
    """The adapter layers that keys speak of where every dot of a path is an underscore, as other trainers write them."""
    layers = {"_".join(path.split(".")[-depth:]): path for path in adapter_paths(file) for depth in range(2, path.count(".") + 2)}
    found = []
    for tensor in tensors:
        words = tensor.key.partition(".")[0].split("_")
        tails = ("_".join(words[start:]) for start in range(len(words)))
        found += [layers[tail] for tail in islice((tail for tail in tails if tail in layers), 1)]
    return found


def _otherwise(layers: list[str]) -> str:
    if layers:
        return "its keys have underscores where a path has dots, as kohya-ss and others write them: convert the file to PEFT's format"
    return "load the adapter onto the model that it was trained with: no renaming of its keys fits this one"


def broken() -> Example:
    """Saved from a compiled model: every key has _orig_mod in it."""
    model = adapted()
    folder = saved(
        model, lambda tensors: {key.replace("base_model.model.", "base_model.model._orig_mod."): tensors[key] for key in tensors}
    )
    return Example(model, text_batch(), adapter=folder)


def fixed() -> Example:
    """Saved from the model itself."""
    model = adapted()
    return Example(model, text_batch(), adapter=saved(model))


RULE = Rule(
    "PI401", "adapter-keys-not-loaded", Severity.ERROR, over=AdapterFile, check=check, broken=broken, fixed=fixed, skip=incomparable
)
