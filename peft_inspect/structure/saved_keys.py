"""The keys under which PEFT saves an adapter of a live model, and those as which it loads the tensors of a file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftMixedModel, PeftModel, get_peft_model_state_dict

from peft_inspect.internals import find, require
from peft_inspect.records import TensorInfo
from peft_inspect.reversible import patched

if TYPE_CHECKING:
    from peft_inspect.structure.owners import Owner

PREFIX = "base_model.model."  # what PEFT writes before the path of every module


def _has_values(value: torch.Tensor) -> bool:
    return type(value) in (torch.Tensor, torch.nn.Parameter) and not value.is_meta and value.numel() > 0


class SavedKeys:
    """The adapter `name` of one owner: `live` maps each key of its file to the live key, which has the adapter's name in it.

    `shapes` holds the shape of everything below the owner by live key. What PEFT saves though no parameter or buffer holds it
    (the indices of a sparse tuner) is its own live key. Values are neither read nor copied.
    """

    def __init__(self, owner: Owner, name: str) -> None:
        self._owner, self._name = owner, name
        self._bare = "" if isinstance(owner.module, (PeftModel, PeftMixedModel)) else PREFIX
        self.shapes = {key: tuple(value.shape) for key, value in owner.module.state_dict(keep_vars=True).items()}
        self.live = self._saved()
        self._adapter_keys = frozenset(self.live.values())

    def zero(self) -> frozenset[str]:
        """The live keys of the adapter whose tensor is exactly zero; none of what has no values here."""
        values = self._owner.module.state_dict(keep_vars=True)
        held = {key: values[key] for key in self.live.values() if key in values and "lora_" in key}
        return frozenset(key for key, value in held.items() if _has_values(value) and not bool(value.any()))

    def path(self, live_key: str) -> str:
        """A live key as a path from the root of the model."""
        return f"{self._owner.path}.{live_key}" if self._owner.path else live_key

    def held(self, key: str) -> str | None:
        """The live key that a key in a file names by itself: a base weight, such as a resized embedding."""
        live_key = key.removeprefix(self._bare)
        return live_key if live_key in self.shapes and live_key not in self._adapter_keys else None

    def loaded(self, tensors: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
        """The tensors of a file with the keys PEFT loads them as."""
        spellings = dict(self._spellings())
        return tuple(self._respelt(tensor, spellings) for tensor in self._converted(tensors))

    def _saved(self) -> dict[str, str]:
        """Empty for tuners that PEFT cannot save without values."""
        marks = {key: torch.empty(shape, device="meta") for key, shape in self.shapes.items()}
        live_key = {id(mark): key for key, mark in marks.items()}
        config = self._owner.configs[self._name]
        kept = patched(*((config, name, lambda pattern: pattern) for name in ("rank_pattern",) if hasattr(config, name)))
        try:
            with kept, warnings.catch_warnings():  # AdaLoRA respells its ranks while saving
                warnings.simplefilter("ignore")
                # Left to itself PEFT would ask the hub for the size of the vocabulary; embeddings in a file are found by name.
                saved: Mapping[str, Any] = get_peft_model_state_dict(
                    self._owner.module, state_dict=marks, adapter_name=self._name, save_embedding_layers=False
                )
        except Exception:  # a tuner that keeps its state elsewhere, or that cuts tensors by their values
            return {}
        self.shapes |= {key: tuple(value.shape) for key, value in saved.items() if id(value) not in live_key}
        return {self._bare + key: live_key.get(id(value), key) for key, value in saved.items()}

    def _spellings(self) -> Iterator[tuple[str, str]]:
        """Other spellings that PEFT loads: with the adapter's own name in the key, and DoRA's magnitude as a module's weight."""
        named = find("remap_for_load") is not None
        for key, live_key in self.live.items():
            if named:
                yield self._bare + live_key, key
            yield self._bare + f"{live_key}.".replace(f".{self._name}.", ".").removesuffix("."), key

    @staticmethod
    def _respelt(tensor: TensorInfo, spellings: Mapping[str, str]) -> TensorInfo:
        key = tensor.loads_as or tensor.key
        known = spellings.get(key, key)
        return replace(tensor, loads_as=None if known == tensor.key else known)

    def _converted(self, tensors: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
        """What PEFT makes of adapters from before transformers 5, where it has a rule for the model: renamed or fused tensors."""
        marks = {tensor.key: torch.empty(tensor.shape, device="meta") for tensor in tensors}
        original = {id(marks[tensor.key]): tensor for tensor in tensors}
        try:
            convert = require("convert_adapter")
            converted: Mapping[str, Any] = convert(self._owner.module, self._owner.configs[self._name], dict(marks), self._name)
        except Exception:  # an older PEFT, or a rule that does not fit these tensors: PEFT would load them as they are, or fail
            return tensors
        return tuple(
            replace(original[id(mark)], loads_as=None if original[id(mark)].key == key else key)
            if id(mark) in original
            else TensorInfo(key, tuple(mark.shape), str(mark.dtype).removeprefix("torch."))
            for key, mark in converted.items()
        )
