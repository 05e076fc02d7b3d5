"""The renaming under which tensors that find no place would fit: tensors without a place, aligned with keys without a tensor."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from peft_inspect.records import AdapterFile, TensorInfo
from peft_inspect.rules.adapter_match import loaded

Parts = tuple[str, ...]
T = TypeVar("T")
_INDEX = "#"


@dataclass(frozen=True)
class Renaming:
    """Rewrites of parts of keys, and what they would place: key in the file → key in the model, each of the same shape."""

    rewrites: Mapping[str, str]
    places: Mapping[str, str]


@dataclass(frozen=True)
class _Pair:
    """Keys that differ only in the indices of their blocks, aligned with others of that kind."""

    found: Parts
    wanted: Parts
    places: Mapping[str, str]

    @property
    def worth(self) -> tuple[int, float]:
        """Tensors placed, then likeness."""
        return len(self.places), difflib.SequenceMatcher(None, self.found, self.wanted, autojunk=False).ratio()


def renaming(unplaced: Iterable[TensorInfo], missing: Iterable[str], file: AdapterFile) -> Renaming:
    """The renaming that places the most tensors; an empty one where none fits."""
    found = _by_pattern({loaded(tensor): tensor for tensor in unplaced})
    wanted = _by_pattern({key: key for key in missing})
    taken: dict[Parts, _Pair] = {}
    for pair in sorted(_pairs(found, wanted, file), key=lambda pair: pair.worth, reverse=True):
        if pair.wanted not in taken and all(other.found != pair.found for other in taken.values()):
            taken[pair.wanted] = pair
    return Renaming(
        rewrites={old: new for pair in taken.values() for old, new in _rewrites(pair.found, pair.wanted)},
        places={old: new for pair in taken.values() for old, new in pair.places.items()},
    )


def _by_pattern(values: Mapping[str, T]) -> dict[Parts, dict[Parts, T]]:
    """The parts of a key without indices → its indices → value."""
    grouped: dict[Parts, dict[Parts, T]] = {}
    for key, value in values.items():
        parts = key.split(".")
        pattern = tuple(_INDEX if part.isdigit() else part for part in parts)
        grouped.setdefault(pattern, {})[tuple(part for part in parts if part.isdigit())] = value
    return grouped


def _pairs(
    found: Mapping[Parts, Mapping[Parts, TensorInfo]], wanted: Mapping[Parts, Mapping[Parts, str]], file: AdapterFile
) -> Iterator[_Pair]:
    """Alignments that place something: same module name, same kind of weight, same indices, same shapes."""
    for pattern, tensors in found.items():
        for aim, keys in wanted.items():
            if not _same_weight(pattern, aim, file.layer_of[next(iter(keys.values()))]):
                continue
            places = {
                tensor.key: keys[indices]
                for indices, tensor in tensors.items()
                if indices in keys and file.expected[keys[indices]] == tensor.shape
            }
            if places:
                yield _Pair(pattern, aim, places)


def _same_weight(found: Parts, wanted: Parts, layer: str) -> bool:
    """Whether both speak of a module of the same name, and not one of lora_A and the other of lora_B."""
    leaf = layer.rpartition(".")[2]
    kinds = [{part for part in parts if part.startswith("lora_")} for parts in (found, wanted)]
    return leaf in found and (kinds[0] == kinds[1] or not kinds[0] or not kinds[1])


def _rewrites(found: Parts, wanted: Parts) -> Iterator[tuple[str, str]]:
    """What to replace by what to get from one pattern to the other."""
    start, end = _alike(found, wanted), _alike(found[::-1], wanted[::-1])
    end = min(end, len(found) - start, len(wanted) - start)
    old, new = found[start : len(found) - end], wanted[start : len(wanted) - end]
    if _INDEX not in found[:start] and _INDEX not in old:  # in front of all blocks: the whole prefix tells more than a piece of it
        yield _text(found[: len(found) - end]), _text(wanted[: len(wanted) - end])
    elif _INDEX not in old:
        yield _in_context(found, start, old, new)
    else:
        for kind, i1, i2, j1, j2 in difflib.SequenceMatcher(None, found, wanted, autojunk=False).get_opcodes():
            if kind != "equal":
                yield _in_context(found, i1, found[i1:i2], wanted[j1:j2])


def _alike(one: Parts, other: Parts) -> int:
    """How many parts agree, from the first on."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _in_context(found: Parts, start: int, old: Parts, new: Parts) -> tuple[str, str]:
    """A replacement; where parts are only added, with the part before them."""
    before = found[max(start - 1, 0) : start] if not old else ()
    return _text(before + old), _text(before + new)


def _text(parts: Parts) -> str:
    return ".".join(parts) + "." if parts else ""
