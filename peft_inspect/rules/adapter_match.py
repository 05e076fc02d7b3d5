"""An adapter file's tensors against what the model wants: each is placed, or belongs to exactly one of the PI4xx rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from peft_inspect.records import AdapterFile, ModuleInfo, TensorInfo

_RANK_AXIS = {"lora_A": 0, "lora_embedding_A": 0, "lora_B": 1, "lora_embedding_B": 1}
_OPTIONAL = {"lora_magnitude_vector": "use_dora", "lora_B.bias": "lora_bias"}
_FEW = 2  # tensors of a pair: one of them alone may have another rank
_MOST_RANKS = 1025
_LONGEST_KEY = 200
_DEEPEST_TAIL = 3  # what follows a module's path in a key: lora_A.default.weight


@dataclass(frozen=True)
class Mismatch:
    """A tensor that has a place and another shape. `ranks` are those of file and model where nothing but the rank differs."""

    tensor: TensorInfo
    wanted: tuple[int, ...]
    ranks: tuple[int, int] | None


@dataclass(frozen=True)
class Match:
    """The tensors of a file by what becomes of them, and the keys that get none."""

    placed: tuple[TensorInfo, ...]
    sizeless: tuple[TensorInfo, ...]  # of size 0
    too_deep: tuple[TensorInfo, ...]  # as others that fit, for blocks that the model does not have
    unplaced: tuple[TensorInfo, ...]
    mismatched: tuple[Mismatch, ...]
    missing: tuple[str, ...]

    @property
    def other_width(self) -> bool:
        """Whether no tensor fits, for reasons other than the rank: the base has other sizes throughout."""
        return not self.placed and any(mismatch.ranks is None for mismatch in self.mismatched) and not (self.ranks_saved or self.transposed)

    @property
    def ranks_saved(self) -> int | None:
        """Of how many processes one saved the file: every tensor is cut along its rows; None where they are not."""
        cut = [(mismatch.tensor.shape, mismatch.wanted) for mismatch in self.mismatched]
        if len(cut) < _FEW or any(len(found) != len(wanted) or found[1:] != wanted[1:] for found, wanted in cut):
            return None
        return next((n for n in range(2, _MOST_RANKS) if all(found[0] == -(-wanted[0] // n) for found, wanted in cut)), None)

    @property
    def transposed(self) -> bool:
        """Whether every tensor that does not fit does so the other way round."""
        ways = [(mismatch.tensor.shape, mismatch.wanted) for mismatch in self.mismatched]
        return bool(ways) and all(len(found) > 1 and found == wanted[::-1] for found, wanted in ways)


def match(file: AdapterFile) -> Match:
    """Where the tensors of a file go. A file without any values has only sizeless tensors, and nothing is missing beside them."""
    by_key = {loaded(tensor): tensor for tensor in file.tensors}
    sizeless = {key: tensor for key, tensor in by_key.items() if 0 in tensor.shape}
    if len(sizeless) == len(by_key):
        return Match((), tuple(sizeless.values()), (), (), (), ())
    known = {key: tensor for key, tensor in by_key.items() if key in file.expected and key not in sizeless}
    strange = {key: tensor for key, tensor in by_key.items() if key not in file.expected and key not in sizeless}
    patterns = {_pattern(key) for key in file.expected}
    names = Names(file)
    too_deep = {key for key in strange if _pattern(key) in patterns and names.module(key) is None}
    mismatched = [key for key, tensor in known.items() if tensor.shape != file.expected[key]]
    return Match(
        placed=tuple(tensor for key, tensor in known.items() if tensor.shape == file.expected[key]),
        sizeless=tuple(sizeless.values()),
        too_deep=tuple(strange[key] for key in strange if key in too_deep),
        unplaced=tuple(strange[key] for key in strange if key not in too_deep),
        mismatched=tuple(Mismatch(known[key], file.expected[key], _ranks(key, known[key].shape, file.expected[key])) for key in mismatched),
        missing=tuple(key for key in file.expected if key not in by_key),
    )


def loaded(tensor: TensorInfo) -> str:
    """The key as which PEFT loads a tensor."""
    return tensor.loads_as or tensor.key


def adapter_layers(keys: Iterable[str], file: AdapterFile) -> tuple[str, ...]:
    """The module paths of expected keys, in order."""
    return tuple(dict.fromkeys(file.layer_of[key] for key in keys))


def incomparable(file: AdapterFile) -> str | None:
    """Why a file cannot be held against the model; None where it can."""
    if file.in_memory:
        return "no adapter file was named"
    if file.expected:
        return None
    return "the model has no adapter that the file could be compared with"


def field_of(weight: str) -> str | None:
    """The field of the config that gives adapter layers a weight of this name, where it is off by default."""
    return next((field for part, field in _OPTIONAL.items() if weight.startswith(part)), None)


def weight_of(key: str, file: AdapterFile) -> str:
    """What an expected key has behind the path of its layer: `lora_A.weight`."""
    return ".".join(_split(key, file.layer_of[key])[2])


def shown(key: str) -> str:
    """A key in a message; a file may hold keys of any length."""
    return repr(key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}…")


def adapter_paths(file: AdapterFile) -> frozenset[str]:
    """The adapter layers of the model; what modules_to_save copies is none."""
    return frozenset(layer.path for layer in file.structure.adapter_layers) if file.structure else frozenset()


class Names:
    """What keys speak of, told by the keys whose modules are known."""

    def __init__(self, file: AdapterFile) -> None:
        self._modules = file.structure.module if file.structure else {}
        self._adapted = adapter_paths(file)
        split = [_split(key, path) for key, path in file.layer_of.items()]
        self._root = next(((root, prefix) for root, prefix, _ in split if prefix is not None), ("", ""))
        self._weights = {("weight",), ("bias",)} | {
            tail
            for (_, prefix, tail), path in zip(split, file.layer_of.values(), strict=True)
            if prefix is not None and path in self._adapted
        }

    def module(self, key: str) -> ModuleInfo | None:
        """The module of the model whose weights a key holds: one that exists, whether or not it carries an adapter."""
        parts = key.split(".")
        if self._is_in_adapter(parts):
            return None
        for end in range(len(parts) - 1, max(len(parts) - 1 - _DEEPEST_TAIL, 0), -1):
            tail = tuple(parts[end:])
            module = self._modules.get(self._path(parts[:end]))
            if module is not None and module.kind != "container" and (tail in self._weights or (tail[0], *tail[2:]) in self._weights):
                return module
        return None

    def adapted(self, key: str) -> tuple[str, str] | None:
        """The adapter layer that a key speaks of, and the weight that it is to have there."""
        parts = key.split(".")
        for end in range(len(parts) - 1, 0, -1):
            path = self._path(parts[:end])
            if path in self._adapted:
                return path, ".".join(parts[end:])
        return None

    def _is_in_adapter(self, parts: list[str]) -> bool:
        """Whether a live module with this key is part of an adapter layer, its base aside: the name of an adapter is in the key."""
        owner = next((end for end in range(len(parts) - 1, 0, -1) if self._path(parts[:end]) in self._adapted), None)
        return owner is not None and parts[owner] != "base_layer" and self._path(parts[:-1]) in self._modules

    def _path(self, parts: list[str]) -> str:
        root, prefix = self._root
        return root + ".".join(parts).removeprefix(prefix)


def of_a_shallower_base(file: AdapterFile, fit: Match) -> bool:
    """Whether all that is missing are whole blocks behind the last one in the file, and its config names another base than this one."""
    named_otherwise = file.base.get("same_name") is False or (
        file.base.get("same_name") is None and file.config.get("base_model_name_or_path")
    )
    return bool(named_otherwise) and only_later_blocks(fit)


def only_later_blocks(fit: Match) -> bool:
    """Whether all that is missing are whole blocks behind the last one in the file."""
    if not fit.missing:
        return False
    depth: dict[str, int] = {}
    for tensor in fit.placed:
        pattern, index = _block(loaded(tensor))
        depth[pattern] = max(depth.get(pattern, -1), index)
    return all(pattern in depth and index > depth[pattern] for pattern, index in map(_block, fit.missing))


def blocks_of(tensors: Iterable[TensorInfo]) -> int:
    """How many blocks a base has at least for which these tensors are."""
    return max((_block(loaded(tensor))[1] for tensor in tensors), default=-1) + 1


def _split(key: str, path: str) -> tuple[str, str | None, tuple[str, ...]]:
    """What the path has before the part that the key shares with it, what the key has there (None: they share nothing), and behind it."""
    for prefix in ("", "base_model.model."):
        parts = key.removeprefix(prefix).split(".")
        for end in range(len(parts) - 1, 0, -1):
            tail = ".".join(parts[:end])
            if path == tail or path.endswith(f".{tail}"):
                return path.removesuffix(tail), prefix, tuple(parts[end:])
    return "", None, ()


def _pattern(key: str) -> str:
    """The key without the indices of blocks."""
    return ".".join("#" if part.isdigit() else part for part in key.split("."))


def _ranks(key: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, int] | None:
    axis = next((axis for name, axis in _RANK_AXIS.items() if name in key.split(".")), None)
    if axis is None or len(found) != 2 or len(wanted) != 2 or found[1 - axis] != wanted[1 - axis]:
        return None
    return found[axis], wanted[axis]


def _block(key: str) -> tuple[str, int]:
    """The key without the indices of blocks, and the first of these; -1 without any."""
    return _pattern(key), next((int(part) for part in key.split(".") if part.isdigit()), -1)
