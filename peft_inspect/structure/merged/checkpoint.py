"""The tensors of a model's safetensors files, read in pieces and never mapped: what is read and let go takes no memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from peft_inspect.load.adapter.safetensors_header import Entry, read_header
from peft_inspect.load.adapter.safetensors_values import DTYPES
from peft_inspect.load.files import read_mapping
from peft_inspect.reading import regular
from peft_inspect.records import InspectionError, text_of

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Stored:
    """Where one tensor is."""

    file: Path
    entry: Entry

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return self.entry.shape

    @property
    def dtype(self) -> torch.dtype:
        """As torch names it."""
        return DTYPES[self.entry.dtype]

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """The rows from `start` to `stop` along dimension 0, or all of it."""
        rows = self.shape[0] if self.shape else 1
        stop = rows if stop is None else min(stop, rows)
        row = (self.entry.end - self.entry.begin) // max(rows, 1)
        values = bytearray((stop - start) * row)
        with self.file.open("rb") as file:
            file.seek(self.entry.begin + start * row)
            file.readinto(values)
        shape = (stop - start, *self.shape[1:]) if self.shape else ()
        return torch.frombuffer(values, dtype=self.dtype).view(shape) if values else torch.empty(shape, dtype=self.dtype)


def read_checkpoint(folder: Path) -> Mapping[str, Stored]:
    """The tensors of a model's folder by name.

    Raises:
        InspectionError: there are no safetensors files, a shard is missing, or a file is damaged or of a dtype that torch has not.
    """
    tensors: dict[str, Stored] = {}
    for file in _files(folder):
        with regular(file).open("rb") as opened:
            tensors |= {name: Stored(file, entry) for name, entry in read_header(file, opened).items()}
    if strange := next((stored for stored in tensors.values() if stored.entry.dtype not in DTYPES), None):
        raise InspectionError(f"{strange.file} holds tensors of dtype {strange.entry.dtype}, which cannot be compared")
    return tensors


def _files(folder: Path) -> Iterator[Path]:
    index = folder / _INDEX
    if (folder / _SINGLE).is_file():
        yield folder / _SINGLE
        return
    if not index.is_file():
        pickle = next((name for name in _PICKLES if (folder / name).is_file()), None)
        why = f"its weights are in {pickle}, a pickle, which can run any code when it is opened" if pickle else f"it has no {_SINGLE}"
        raise InspectionError(f"{folder} cannot be compared with its base: {why}. Save the model again as safetensors")
    try:
        names = sorted(set(read_mapping(index)["weight_map"].values()))
    except (TypeError, KeyError, AttributeError) as error:
        raise InspectionError(f"{index} is no index of shards: {text_of(error)}") from error
    for name in names:
        if "/" in str(name) or not (folder / str(name)).is_file():
            raise InspectionError(f"{index} names the shard {name!r}, which is not in {folder}: the download or save is not complete")
        yield folder / str(name)


def pieces(shape: tuple[int, ...], most: int, step: int = 1) -> Iterator[tuple[int, int]]:
    """Ranges of rows of no more than `most` elements each, and of at least `step` rows."""
    rows = shape[0] if shape else 1
    size = max(most // max(math.prod(shape[1:]), 1), step)
    starts = list(range(0, rows, size))
    if len(starts) > 1 and rows - starts[-1] < step:  # the last piece would be too short to stand by itself
        starts.pop()
    yield from zip(starts, [*starts[1:], rows], strict=True)
