"""Modules that training changed, or that no checkpoint brings, and that PEFT does not save with the adapter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from peft_inspect.structure.saved_keys import PREFIX, SavedKeys

if TYPE_CHECKING:
    from peft_inspect.records import Structure
    from peft_inspect.structure.owners import Owner

# Classes whose head belongs to one task: it is not part of what the base model was pretrained for.
_TASK = re.compile(
    r"For\w*(Classification|QuestionAnswering|MultipleChoice|Regression|CTC|XVector|Segmentation|Detection|DepthEstimation)$"
)


def new_modules(owner: Owner, structure: Structure, keys: SavedKeys) -> Mapping[str, str]:
    """Module path → the key its parameters would have in an adapter file, up to their own names."""
    saved = {keys.path(live_key) for live_key in keys.live.values()}
    below = f"{owner.path}." if owner.path else ""
    wrapped = owner.path != owner.base_path
    found = dict.fromkeys(
        parameter.module
        for parameter in structure.parameters
        if parameter.requires_grad and parameter.role == "base" and parameter.path.startswith(below)
        if saved.isdisjoint((parameter.path, *parameter.aliases)) and not _of_a_tuner(parameter.path, structure)
    )
    found.update(dict.fromkeys(_fresh_heads(owner, structure)))
    return {path: path.removeprefix(below) if wrapped else PREFIX + path.removeprefix(below) for path in found}


def _of_a_tuner(path: str, structure: Structure) -> bool:
    """Whether a parameter belongs to an adapter layer itself: bookkeeping that PEFT makes anew on loading, as AdaLoRA's ranks."""
    return any(path.startswith(f"{layer.path}.") and not path.startswith(f"{layer.base_path}.") for layer in structure.adapter_layers)


def _fresh_heads(owner: Owner, structure: Structure) -> Iterator[str]:
    """The task's own modules of a model whose checkpoint was saved as another class."""
    base = structure.module[owner.base_path]
    if not _TASK.search(base.type) or base.type in (structure.model_config.get("architectures") or ()):
        return
    backbone = getattr(owner.module, "base_model_prefix", None)
    prefix = f"{owner.base_path}." if owner.base_path else ""
    for parameter in structure.parameters:
        inside = parameter.path.removeprefix(prefix)
        if parameter.role == "base" and parameter.path.startswith(prefix) and inside.split(".")[0] != backbone:
            yield parameter.module
