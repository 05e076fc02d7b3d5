"""The adapters that the user's own code loads, wherever it does: the file, the tensors, what of them found a place, and the line."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.load.adapter.attach import read_files
from peft_inspect.records import AdapterFile, InspectionError, Source, TensorInfo
from peft_inspect.reversible import patched
from peft_inspect.run import patches
from peft_inspect.structure.source.lines import line_above, source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

_ADAPTER = ("lora_", "hada_", "lokr_", "ia3_", "vera_", "boft_", "oft_", "adalora_", "prompt_embeddings")
_GIVEN = "the state dict given to load_state_dict"


@dataclass(frozen=True)
class Load:
    """One adapter that was loaded."""

    module: nn.Module
    folder: str | None
    tensors: tuple[TensorInfo, ...]  # those of adapters among what was given
    placed: bool  # all of them found a place
    line: Source | None

    @property
    def adapter(self) -> str | None:
        """The adapter that PEFT loaded it as: the name that it puts behind that of each weight."""
        parts = [tensor.key.split(".") for tensor in self.tensors]
        behind = {after for key in parts for part, after in pairwise(key) if part.startswith(_ADAPTER)} - {"weight", "bias"}
        return behind.pop() if len(behind) == 1 else None


class Loads:
    """Notes every load, of a folder by PEFT and of a state dict by torch."""

    def __init__(self) -> None:
        self.found: list[Load] = []
        self._folder: str | None = None

    def watching(self) -> patched:
        """What is loaded inside is noted."""
        return patched((*patches.LOAD_WEIGHTS, self._of_folder), (*patches.LOAD_STATE_DICT, self._of_state_dict))

    def files(self, model: nn.Module) -> tuple[AdapterFile, ...]:
        """What was loaded into this model, or into a part of it, as adapter files to be compared with it."""
        held = {id(module) for module in model.modules()}
        return tuple(file for load in self.found if id(load.module) in held for file in _files(load))

    def _of_folder(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def load_peft_weights(model_id: str, *args: Any, **kwargs: Any) -> Any:
            self._folder = str(model_id)
            return original(model_id, *args, **kwargs)

        return load_peft_weights

    def _of_state_dict(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def load_state_dict(module: nn.Module, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
            result = original(module, state_dict, *args, **kwargs)
            folder, self._folder = self._folder, None
            given = {key: value for key, value in dict(state_dict).items() if _is_adapter(key, value)}
            if given:
                lost = given.keys() & set(getattr(result, "unexpected_keys", ()))
                tensors = tuple(_described(key, value) for key, value in given.items())
                self.found.append(Load(module, folder, tensors, not lost, source(line_above(sys._getframe()))))
            return result

        return load_state_dict


def _is_adapter(key: str, value: Any) -> bool:
    return isinstance(value, torch.Tensor) and any(part.startswith(_ADAPTER) for part in key.split("."))


def _described(key: str, value: torch.Tensor) -> TensorInfo:
    return TensorInfo(key, tuple(value.shape), str(value.dtype).removeprefix("torch."), zero=not bool(value.any()))


def _files(load: Load) -> tuple[AdapterFile, ...]:
    """The folder as it is read with `--adapter`; of a state dict, only one that did not fit says anything."""
    if load.folder is not None and Path(load.folder).is_dir():
        with suppress(InspectionError):  # PEFT has loaded it, so what is the matter with it is not ours to say
            files = read_files(load.folder)
            name = load.adapter if len(files) == 1 else None
            return tuple(replace(file, loaded_at=load.line, adapter=name or file.adapter) for file in files)
    if load.placed:
        return ()
    return (AdapterFile(_GIVEN, {}, load.tensors, loaded_at=load.line),)
