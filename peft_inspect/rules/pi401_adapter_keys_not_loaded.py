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

from collections.abc import Iterable, Iterator
from typing import Any

from peft_inspect.records import AdapterFile, Finding, ModuleInfo, Severity, TensorInfo
from peft_inspect.rules.adapter_examples import adapted, saved
from peft_inspect.rules.adapter_match import incomparable, loaded, match, module_named
from peft_inspect.rules.examples import text_batch
from peft_inspect.rules.key_mapping import Renaming, renaming
from peft_inspect.rules.rule import Example, Rule


def check(file: AdapterFile) -> Iterator[Finding]:
    """Unplaced tensors: those of modules that the config leaves out, those that a renaming would place, the rest."""
    fit = match(file)
    if not fit.unplaced:
        return
    adapted = set(file.layer_of.values())
    named = {tensor.key: module for tensor in fit.unplaced if (module := module_named(loaded(tensor), file))}
    left_out = {key: module for key, module in named.items() if module.path not in adapted}
    mapping = renaming((tensor for tensor in fit.unplaced if tensor.key not in left_out), fit.missing, file)
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
    yield RULE.finding(_message(fit.unplaced, file, mapping), layers, facts=facts, fix=_fix(mapping, left_out.values()))


def _message(unplaced: tuple[TensorInfo, ...], file: AdapterFile, mapping: Renaming) -> str:
    first, of = unplaced[0].key, f"{len(unplaced)} of {len(file.tensors)} tensors"
    message = f"{of} in {file.path} find no place in the model, {first!r} for one: they are not loaded"
    if mapping.places:
        message += f"; {len(mapping.places)} of them would fit under another name: {_spelt(mapping)}"
    return message


def _spelt(mapping: Renaming) -> str:
    return ", ".join(f"{old!r} → {new!r}" if old else f"{new!r} in front" for old, new in mapping.rewrites.items())


def _fix(mapping: Renaming, left_out: Iterable[ModuleInfo]) -> str:
    """One sentence per cause."""
    fixes = []
    if mapping.places:
        fixes.append(
            "load the adapter onto the class and version that it was trained with, before any other wrapping, "
            f"or rename its keys: {_spelt(mapping)}"
        )
    targets = ", ".join(sorted({repr(module.path.rpartition(".")[2]) for module in left_out}))
    if targets:
        fixes.append(f"add {targets} to target_modules in adapter_config.json, or to modules_to_save if the file holds whole modules")
    return "; ".join(fixes) or "load the adapter onto the model that it was trained with: no renaming of its keys fits this one"


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
