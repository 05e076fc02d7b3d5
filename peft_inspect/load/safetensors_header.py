"""The header of a safetensors file: names, shapes and dtypes of its tensors, and of their values only whether they are zero or finite.

The format: eight bytes with the length of the header (little-endian), the header as JSON, then the values back to back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peft_inspect.records import InspectionError, TensorInfo

_LENGTH = 8  # bytes that hold the length of the header
_LONGEST = 100_000_000  # the longest header that safetensors itself accepts, in bytes
_CHUNK = 1 << 22  # bytes of a tensor in memory at a time
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_tensors(path: Path) -> tuple[TensorInfo, ...]:
    """Every tensor of the file, by key. Whether it is all zero, and finite, is read from the file, four megabytes at a time.

    Raises:
        InspectionError: the file is empty, cut short, or no safetensors file.
    """
    try:
        with path.open("rb") as file:
            header, start = _header(path, file)
            return tuple(_tensor(key, header[key], start, file, path) for key in sorted(header))
    except OSError as error:
        raise InspectionError(f"{path} cannot be read: {error.strerror}") from error


def _header(path: Path, file: BufferedReader) -> tuple[Mapping[str, Any], int]:
    """The entries of the header, and where the values begin."""
    size = path.stat().st_size
    first = file.read(_LENGTH)
    if not first:
        raise InspectionError(f"{path} is empty (0 bytes): the save did not finish, save the adapter again")
    if (first + file.read(120)).startswith(b"version https://git-lfs"):
        raise InspectionError(f"{path} is a Git LFS pointer and not the file itself: fetch it with `git lfs pull`")
    length = int.from_bytes(first, "little")
    if len(first) < _LENGTH or length > _LONGEST:
        raise InspectionError(f"{path} is no safetensors file: it does not begin with the length of a header")
    if _LENGTH + length > size:
        raise InspectionError(f"{path} is cut short: its header alone should take {length:,} bytes, and the file has {size:,}")
    file.seek(_LENGTH)
    try:
        header = json.loads(file.read(length))
    except ValueError as error:
        raise InspectionError(f"{path} is no safetensors file: its header is not JSON") from error
    if not isinstance(header, dict):
        raise InspectionError(f"{path} is no safetensors file: its header is no object")
    header.pop("__metadata__", None)
    start = _LENGTH + length
    ends = [entry["data_offsets"][1] for key, entry in header.items() if _is_entry(path, key, entry)]
    if start + max(ends, default=0) > size:
        raise InspectionError(f"{path} is cut short: its tensors should end at byte {start + max(ends):,}, and the file has {size:,}")
    return header, start


def _is_entry(path: Path, key: str, entry: Any) -> bool:
    """True for a well-formed entry; anything else is an error."""
    fields = entry if isinstance(entry, dict) else {}
    if not (_numbers(fields.get("shape")) and _numbers(fields.get("data_offsets"), 2)):
        raise InspectionError(f"{path} is no safetensors file: the entry {key!r} of its header has no shape or no offsets")
    return True


def _numbers(values: Any, count: int | None = None) -> bool:
    return isinstance(values, list) and count in (None, len(values)) and all(isinstance(value, int) and value >= 0 for value in values)


def _tensor(key: str, entry: Mapping[str, Any], start: int, file: BufferedReader, path: Path) -> TensorInfo:
    dtype = str(entry.get("dtype"))
    begin, end = entry["data_offsets"]
    if end < begin:
        raise InspectionError(f"{path} is no safetensors file: the tensor {key!r} ends before it begins")
    name = _DTYPES.get(dtype, dtype.lower())
    known: torch.dtype | None = getattr(torch, _DTYPES.get(dtype, ""), None)
    wanted = math.prod(entry["shape"]) * known.itemsize if known else end - begin
    if wanted != end - begin:
        raise InspectionError(
            f"{path} is no safetensors file: the tensor {key!r} has {end - begin:,} bytes, and its shape {entry['shape']} takes {wanted:,}"
        )
    if begin == end:
        return TensorInfo(key, tuple(entry["shape"]), name)
    extremes = [_extremes(values) for values in _chunks(file, start + begin, end - begin, known or torch.uint8)]
    zero = all(low == high == 0 for low, high in extremes)
    floating = known is not None and known.is_floating_point
    finite = all(map(math.isfinite, (end for pair in extremes for end in pair))) if floating else None
    return TensorInfo(key, tuple(entry["shape"]), name, zero=zero, finite=finite)


def _chunks(file: BufferedReader, at: int, size: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """The values of one tensor, flat, in pieces that last until the next is asked for."""
    buffer = bytearray(min(_CHUNK, size))
    file.seek(at)
    for done in range(0, size, _CHUNK):
        piece = memoryview(buffer)[: size - done]
        file.readinto(piece)
        yield torch.frombuffer(piece, dtype=dtype)


def _extremes(values: Tensor) -> tuple[float, float]:
    """The lowest and the highest value; NaN if any is: one pass at the speed of memory, where isfinite takes thirty times as long."""
    wide = values.float() if values.is_floating_point() and values.itemsize == 1 else values
    low, high = wide.aminmax()
    return low.item(), high.item()
