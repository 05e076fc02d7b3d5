"""A head or new module that was trained is not in the adapter file.

PEFT saves the adapter and what `modules_to_save` lists, nothing else. A classification head that
was unfrozen by hand trains and is lost: the reloaded model has a random one.

List it in `modules_to_save`, or give the task type (`SEQ_CLS` lists the usual heads).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peft_inspect.records import AdapterFile, Finding, Severity
from peft_inspect.rules.adapter_examples import as_trained, saved
from peft_inspect.rules.adapter_match import adapter_paths, incomparable, loaded, match
from peft_inspect.rules.examples import text_batch, tiny_llama
from peft_inspect.rules.key_mapping import renaming
from peft_inspect.rules.rule import Example, Rule
from peft_inspect.rules.words import agreed


def check(file: AdapterFile) -> Iterator[Finding]:
    """Trained or fresh modules without a tensor in the file; those that modules_to_save lists count as well."""
    fit = match(file)
    if not fit.placed and not fit.mismatched:
        return  # an empty file, or one whose keys were not recognised at all
    held = {loaded(tensor) for tensor in file.tensors}
    built = adapter_paths(file)
    lost = [path for path, key in file.new_modules.items() if not any(name.startswith(f"{key}.") for name in held)]
    renamed = set(renaming(fit.unplaced, fit.missing, file).places.values())
    lost += [file.layer_of[key] for key in fit.missing if file.layer_of[key] not in built and key not in renamed]
    if lost:
        names = sorted({path.rpartition(".")[2] for path in lost})
        yield RULE.finding(
            f"{', '.join(map(repr, names[:5]))}{' and others' if len(names) > 5 else ''} of the base model {agreed(len(names), 'is', 'are')} trained or new, "
            f"and {file.path} does not hold {agreed(len(names), 'it', 'them')}: a model that is loaded again gets what the base brings, or "
            "random values",
            lost,
            facts={"file": file.path, "modules": sorted(set(lost))},
            fix=f"put {agreed(len(names), 'it', 'them')} in modules_to_save={names[:5]} (task_type does so for the usual heads), train, and save again",
        )


def broken() -> Example:
    """The head was unfrozen by hand."""
    model = _classifier()
    model.base_model.model.score.requires_grad_(True)
    return Example(model, _batch(), adapter=saved(model))


def fixed() -> Example:
    """The head is in modules_to_save, as the task type would have it."""
    model = _classifier(modules_to_save=["score"])
    return Example(model, _batch(), adapter=saved(model))


def _classifier(**fields: Any) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(0)
    base = LlamaForSequenceClassification(tiny_llama(pad_token_id=0).config).train()
    return as_trained(get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], **fields)))


def _batch() -> Mapping[str, Any]:
    import torch

    return {**text_batch(), "labels": torch.tensor([1])}


RULE = Rule("PI406", "head-not-saved", Severity.WARNING, over=AdapterFile, check=check, broken=broken, fixed=fixed, skip=incomparable)
