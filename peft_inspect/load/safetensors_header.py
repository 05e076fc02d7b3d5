"""The header of a safetensors file: names, shapes and dtypes of its tensors, without their values.

The format: eight bytes with the length of the header (little-endian), the header as JSON, then the values back to back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from peft_inspect.records import InspectionError, TensorInfo

_LENGTH = 8  # bytes that hold the length of the header
_LONGEST = 100_000_000  # the longest header that safetensors itself accepts, in bytes
_PEEK, _CHUNK = 256, 1 << 20  # a trained tensor shows a non-zero byte at once; an untrained one is read through
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
    """Every tensor of the file, by key. Whether it is all zero is read from the file, at most a megabyte at a time.

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
    zero = not any(_chunks(file, start + begin, end - begin)) if end > begin else None
    return TensorInfo(key, tuple(entry["shape"]), _DTYPES.get(dtype, dtype.lower()), zero=zero)


def _chunks(file: BufferedReader, at: int, size: int) -> Iterator[bytes]:
    """The bytes of one tensor without leading zeros, a short piece first; what nobody asks for is not read."""
    file.seek(at)
    chunk = min(_PEEK, size)
    while chunk > 0:
        yield file.read(chunk).lstrip(b"\0")  # lstrip runs in C: a megabyte of zeros costs no loop in Python
        size -= chunk
        chunk = min(_CHUNK, size)
