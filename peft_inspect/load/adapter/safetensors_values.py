"""The tensors of a safetensors file by its header, and of their values only whether they are zero, one or finite."""

from __future__ import annotations

import math
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

import torch
from torch import Tensor

from peft_inspect.load.adapter.safetensors_header import Entry, read_header
from peft_inspect.reading import regular
from peft_inspect.records import InspectionError, TensorInfo

_CHUNK = 1 << 22  # bytes of a tensor in memory at a time
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_tensors(path: Path) -> tuple[TensorInfo, ...]:
    """Every tensor of the file, by key. Whether it is all zero, and finite, is read from the file, four megabytes at a time.

    Raises:
        InspectionError: the file is empty, cut short, or no safetensors file.
    """
    try:
        with regular(path).open("rb") as file:
            return tuple(_tensor(key, entry, file) for key, entry in read_header(path, file).items())
    except OSError as error:
        raise InspectionError(f"{path} cannot be read: {error.strerror}") from error


def _tensor(key: str, entry: Entry, file: BufferedReader) -> TensorInfo:
    dtype = DTYPES.get(entry.dtype)
    name = str(dtype).removeprefix("torch.") if dtype else entry.dtype.lower()
    if entry.begin == entry.end:
        return TensorInfo(key, entry.shape, name)
    extremes = [_extremes(values) for values in _chunks(file, entry, dtype or torch.uint8)]
    zero, one = (all(low == high == value for low, high in extremes) for value in (0, 1))
    finite = all(map(math.isfinite, (end for pair in extremes for end in pair))) if dtype and dtype.is_floating_point else None
    return TensorInfo(key, entry.shape, name, zero=zero, one=one, finite=finite)


def _chunks(file: BufferedReader, entry: Entry, dtype: torch.dtype) -> Iterator[Tensor]:
    """The values of one tensor, flat, in pieces that last until the next is asked for."""
    size = entry.end - entry.begin
    buffer = bytearray(min(_CHUNK, size))
    file.seek(entry.begin)
    for done in range(0, size, _CHUNK):
        piece = memoryview(buffer)[: size - done]
        file.readinto(piece)
        yield torch.frombuffer(piece, dtype=dtype)


def _extremes(values: Tensor) -> tuple[float, float]:
    """The lowest and the highest value; NaN if any is: one pass at the speed of memory, where isfinite takes thirty times as long."""
    wide = values.float() if values.is_floating_point() and values.itemsize == 1 else values
    low, high = wide.aminmax()
    return low.item(), high.item()
