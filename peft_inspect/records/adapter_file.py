"""An adapter on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peft_inspect.records.basics import Source
from peft_inspect.records.merged import MergedWeights
from peft_inspect.records.structure import Structure


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a safetensors header, and what its values say where they were read."""

    key: str
    shape: tuple[int, ...]
    dtype: str
    zero: bool | None = None
    one: bool | None = None
    finite: bool | None = None
    loads_as: str | None = None  # the key under which PEFT loads it, where that is not the file's own


@dataclass(frozen=True)
class Conversion:
    """How a file becomes one that PEFT loads: the tensors under other names, and transposed where the other tool holds them so."""

    keys: Mapping[str, str]  # of the file → PEFT's
    transposed: bool = False


@dataclass(frozen=True)
class AdapterFile:
    """An adapter on disk: its config, its safetensors header, and the layers it was meant for."""

    path: str
    config: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    adapter: str = "default"
    expected: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # key → shape that the model's adapter layers want
    layer_of: Mapping[str, str] = field(default_factory=dict)  # expected key → adapter layer path
    structure: Structure | None = None
    base: Mapping[str, Any] = field(default_factory=dict)  # name, class, depth, width of the base that was inspected
    new_modules: Mapping[str, str] = field(default_factory=dict)  # path of a trained or fresh module PEFT does not save → its key in a file
    live_zero: frozenset[str] = frozenset()  # expected keys whose live tensor is exactly zero, where there are values
    trained_below: tuple[str, ...] = ()  # sub-folders with an adapter that is trained, where this one is not
    merged: MergedWeights | None = None  # a checkpoint that is said to contain the adapter
    loaded_at: Source | None = None  # the line of the user's code that loaded it
    in_memory: bool = False  # a loaded adapter seen in the live model, whose file was not named
