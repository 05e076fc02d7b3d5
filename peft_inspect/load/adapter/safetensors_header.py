"""The header of a safetensors file: names, shapes and dtypes of its tensors, and where their values are.

The format: eight bytes with the length of the header (little-endian), the header as JSON, then the values back to back.
What the library safetensors refuses is refused here, with a sentence that says what is wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from peft_inspect.records import InspectionError

_LENGTH = 8  # bytes that hold the length of the header
_LONGEST = 100_000_000  # the longest header that safetensors itself accepts, in bytes
_MOST_TENSORS = 200_000  # in one file: a LoRA on every expert of the largest models has 140,000
_MOST_BYTES = 48 << 20  # of a header with as many tensors, names of 150 characters among them
_LARGEST = 1 << 63  # sizes below it fit the integers of torch
_LONG_KEY, _MANY_AXES = 200, 8  # what is cut short in a message
_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


@dataclass(frozen=True)
class Entry:
    """One tensor: its dtype as safetensors names it, and where its values begin and end in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path, file: BufferedReader) -> dict[str, Entry]:
    """The tensors of an open file by key, in alphabetical order.

    Raises:
        InspectionError: the file is empty, cut short, or no safetensors file.
    """
    header, start = _header(path, file)
    entries = {key: _entry(path, key, header[key], start) for key in sorted(header)}
    _check_order(path, entries, start)
    return entries


def _header(path: Path, file: BufferedReader) -> tuple[Mapping[str, Any], int]:
    """The header as it stands, and where the values begin."""
    size = path.stat().st_size
    first = file.read(_LENGTH)
    if not first:
        raise InspectionError(f"{path} is empty (0 bytes): the save did not finish, save the adapter again")
    if (first + file.read(120)).startswith(b"version https://git-lfs"):
        raise InspectionError(f"{path} is a Git LFS pointer and not the file itself: fetch it with `git lfs pull`")
    length = int.from_bytes(first, "little")
    if len(first) < _LENGTH or length > _LONGEST:
        raise _no_safetensors(path, "it does not begin with the length of a header")
    if length > _MOST_BYTES:
        raise InspectionError(f"{path} has a header of {length:,} bytes, and no more than {_MOST_BYTES:,} are read: no adapter needs them")
    if _LENGTH + length > size:
        raise InspectionError(f"{path} is cut short: its header alone should take {length:,} bytes, and the file has {size:,}")
    file.seek(_LENGTH)
    try:
        header = json.loads(file.read(length).decode("utf-8"))
        "".join(header if isinstance(header, dict) else ()).encode("utf-8")  # JSON can spell half a character
    except (ValueError, RecursionError) as error:
        raise _no_safetensors(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _no_safetensors(path, "its header is no object")
    if len(header) > _MOST_TENSORS:
        raise InspectionError(f"{path} has {len(header):,} tensors, and no more than {_MOST_TENSORS:,} are read of one file")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _no_safetensors(path, "the __metadata__ of its header is no object of texts")
    return header, _LENGTH + length


def _entry(path: Path, key: str, entry: Any, start: int) -> Entry:
    shown = repr(key[:_LONG_KEY])
    fields = entry if isinstance(entry, dict) else {}
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    dtype = fields.get("dtype")
    if not (_sizes(shape) and _sizes(offsets, 2)):
        raise _no_safetensors(path, f"the entry {shown} of its header has no shape or no offsets")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _no_safetensors(path, f"the tensor {shown} has the dtype {dtype!r}, which the format does not know")
    begin, end = offsets
    if end < begin:
        raise _no_safetensors(path, f"the tensor {shown} ends before it begins")
    wanted = _bytes(shape, _BITS[dtype])
    if wanted != end - begin:
        axes = str(shape) if len(shape) <= _MANY_AXES else f"of {len(shape)} axes"
        raise _no_safetensors(path, f"the tensor {shown} has {end - begin:,} bytes, and its shape {axes} takes {wanted:,}")
    return Entry(dtype, tuple(shape), start + begin, start + end)


def _bytes(shape: Sequence[int], bits: int) -> float:
    """What the values of a shape take; infinite where that is more than any file holds."""
    if 0 in shape:
        return 0
    for size in shape:
        bits *= size
        if bits > 8 * _LARGEST:
            return math.inf
    return bits // 8 if bits % 8 == 0 else bits / 8


def _check_order(path: Path, entries: Mapping[str, Entry], start: int) -> None:
    """The values lie back to back and fill the file: nothing overlaps, and nothing hides between them."""
    size, end = path.stat().st_size, start
    last = max((entry.end for entry in entries.values()), default=start)
    if last > size:
        raise InspectionError(f"{path} is cut short: its tensors should end at byte {last:,}, and the file has {size:,}")
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            how = "overlaps the one before it" if entry.begin < end else "does not begin where the one before it ends"
            raise _no_safetensors(path, f"the tensor {key[:_LONG_KEY]!r} {how}")
        end = entry.end
    if end != size:
        raise _no_safetensors(path, f"its tensors end at byte {end:,}, and the file has {size:,}")


def _sizes(values: Any, count: int | None = None) -> bool:
    return (
        isinstance(values, list) and count in (None, len(values)) and all(type(value) is int and 0 <= value < _LARGEST for value in values)
    )


def _no_safetensors(path: Path, why: str) -> InspectionError:
    return InspectionError(f"{path} is no safetensors file: {why}")
