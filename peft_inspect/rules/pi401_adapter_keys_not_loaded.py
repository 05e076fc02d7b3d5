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
from dataclasses import replace
from typing import Any, TypeGuard

from peft_inspect.records import AdapterFile, Conversion, Finding, ModuleInfo, Severity, TensorInfo
from peft_inspect.rules.adapter_examples import adapted, saved
from peft_inspect.rules.adapter_match import Match, Names, field_of, incomparable, loaded, match, shown
from peft_inspect.rules.examples import text_batch
from peft_inspect.rules.foreign_formats import Foreign, foreign
from peft_inspect.rules.key_mapping import Renaming, renaming
from peft_inspect.rules.lost_experts import LostExperts, lost_experts
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import quoted, settings


def check(file: AdapterFile) -> Iterator[Finding]:
    """Unplaced tensors: those of modules that the config leaves out, those that a renaming would place, the rest."""
    fit = match(file)
    if other := foreign(fit.unplaced, file):
        yield _of_another_tool(other, file)
        return
    if never := _never_loaded(fit, file):
        yield _unloaded(never, file)
        return
    if experts := lost_experts(fit.unplaced, file):
        yield _of_experts(experts, file)
    unplaced = [tensor for tensor in fit.unplaced if tensor.key not in (experts.keys if experts else ())]
    if unplaced:
        yield from _unplaced(replace(fit, unplaced=tuple(unplaced)), file)


def _unplaced(fit: Match, file: AdapterFile) -> Iterator[Finding]:
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
    layers += [path for path, _ in strange]
    fixes = (*_fix_of_names(mapping), *_fix_of_targets(left_out), *_fix_of_weights(weight for _, weight in strange))
    yield RULE.finding(
        _message(fit.unplaced, file, mapping), layers, facts=facts, fix="; ".join(fixes) or _OTHERWISE, conversion=_converted(mapping)
    )


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


def _converted(mapping: Renaming) -> Conversion | None:
    return Conversion(mapping.places) if mapping.places else None


def _of_another_tool(other: Foreign, file: AdapterFile) -> Finding:
    """A file that PEFT cannot load as it is, by the name of the tool that wrote it."""
    first, conversion = other.tensors[0].key, other.conversion
    fits = (
        f"; {len(conversion.keys)} of them fit as PEFT's, {shown(first)} as {shown(conversion.keys[first])}"
        if _fits(conversion, first)
        else ""
    )
    return RULE.finding(
        f"{len(other.tensors)} of {len(file.tensors)} tensors in {file.path} have the names of {other.format.name}, {shown(first)} for one: "
        f"PEFT loads none of them{fits}",
        other.layers,
        facts={
            "file": file.path,
            "unplaced": len(other.tensors),
            "tensors": len(file.tensors),
            "keys": [tensor.key for tensor in other.tensors][:8],
            "format": other.format.name,
            **({"would_place": len(conversion.keys), "transposed": conversion.transposed} if conversion else {}),
        },
        conversion=conversion,
        fix=other.format.how + (": `--suggest FOLDER` writes it" if conversion else ""),
    )


def _fits(conversion: Conversion | None, key: str) -> TypeGuard[Conversion]:
    return conversion is not None and key in conversion.keys


def _never_loaded(fit: Match, file: AdapterFile) -> list[str]:
    """Layers whose tensors fit and hold values, while the live ones are zero as before the first step."""
    if fit.unplaced or fit.mismatched or fit.missing:  # what is wrong with it explains that it was not loaded
        return []
    unlike = [key for tensor in fit.placed if tensor.zero is False and (key := loaded(tensor)) in file.live_zero]
    return list(dict.fromkeys(file.layer_of[key] for key in unlike))


def _unloaded(layers: list[str], file: AdapterFile) -> Finding:
    seen = file.loaded_at is not None
    what = "fits the model and nothing of it was loaded" if seen else "fits the model and was never loaded"
    return RULE.finding(
        f"{file.path} {what}: {len(layers)} adapter layers have a factor that is exactly zero, which in the file is not",
        layers,
        facts={"file": file.path, "layers": len(layers), "loaded": False},
        fix="load it by PeftModel.from_pretrained, load_adapter or set_peft_model_state_dict: load_state_dict(strict=False) passes over "
        "keys without the adapter's name in them",
        severity=None if seen else Severity.WARNING,  # a model that is yet to be loaded looks the same
    )


def _of_experts(experts: LostExperts, file: AdapterFile) -> Finding:
    return RULE.finding(
        f"{len(experts.keys)} of {len(file.tensors)} tensors in {file.path} are for the experts' raw parameters, which the config has lost: "
        "they are not loaded",
        experts.modules,
        facts={"file": file.path, "unplaced": len(experts.keys), "tensors": len(file.tensors), "keys": list(experts.keys)[:8]},
        suggestion=experts.suggestion,
        fix=f"set {settings(experts.suggestion)} in adapter_config.json",
    )


_OTHERWISE = "load the adapter onto the model that it was trained with: no renaming of its keys fits this one"


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
