"""A config shrunk consistently, so that the same architecture runs with real numbers in seconds.

Every kind of layer that occurs is kept once. Widths and head counts are divided by one factor for the whole tree of
configs, so that what had to be equal or divisible stays so; the size of a head never changes, because rotary sections
and normalisation groups are cut to it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

from transformers import PretrainedConfig

from peft_inspect.load.model.config_fields import (
    DEPTH,
    EXPERTS,
    GROUPS,
    HEADS,
    INNER_WIDTH,
    MODEL_WIDTH,
    NOT_WIDTH,
    PERIOD,
    SHARED_HEADS,
    STAGES,
    START,
    TOKEN,
    TOP_K,
    VOCAB,
    WIDTH,
)
from peft_inspect.load.model.config_tree import parts

_MAX_LAYERS = 2
_MAX_TAPS = 5
_MAX_EXPERTS = 4
_MAX_PATCHES = 16  # along one side
_MAX_PIXELS = 128  # likewise
_MAX_VOCAB = 1024
_MAX_WIDTH = 1024
_ALIGNMENT = 8  # grouped matrix products want rows of whole 16 bytes


def reduced(config: PretrainedConfig) -> tuple[PretrainedConfig, str]:
    """A smaller config of the same architecture, and what was reduced to what.

    Args:
        config: left as it is.

    Returns:
        A copy whose model has fewer layers (every kind that occurs is kept), narrower ones, fewer experts (never fewer
        than are chosen per token) and a smaller vocabulary in which all special and placeholder token ids stay valid;
        and one line for the report, "reduced: num_hidden_layers 61→2, …".
    """
    small = copy.deepcopy(config)
    changes: dict[str, str] = {}
    tree = list(parts(small))
    widths = _Widths(tree)
    tokens = _TokenMap(tree)
    for prefix, part in tree:
        before = _plain(part)
        _fewer_layers(part)
        _fewer_experts(part)
        widths.apply(part)
        _smaller_images(part, config)
        tokens.apply(part)
        for name, value in _plain(part).items():
            if value != before[name]:
                changes[prefix + name] = f"{_short(before[name])}→{_short(value)}"
    note = ", ".join(f"{name} {change}" for name, change in changes.items())
    return small, f"reduced: {note}" if note else "reduced: nothing, the config is small already"


def _plain(config: PretrainedConfig) -> dict[str, Any]:
    return {name: copy.copy(value) for name, value in vars(config).items() if not isinstance(value, PretrainedConfig)}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{len(value)} entries" if isinstance(value, (list, tuple, str)) else text[:24]


def _integers(config: PretrainedConfig, names: re.Pattern[str]) -> dict[str, int]:
    return {
        name: value for name, value in vars(config).items() if names.search(name) and isinstance(value, int) and not isinstance(value, bool)
    }


# --- depth ---------------------------------------------------------------------------------------


def _fewer_layers(config: PretrainedConfig) -> None:
    """Cut every stack of one config, with the lists that describe its layers one by one."""
    depths = {name: depth for name, depth in _integers(config, DEPTH).items() if depth > _MAX_LAYERS and not _taps_by_stage(config)}
    at_least = _MAX_LAYERS
    for name, period in _integers(config, PERIOD).items():
        if period > _MAX_LAYERS:
            setattr(config, name, _MAX_LAYERS)
            offset = re.sub(PERIOD, "_offset", name)
            if isinstance(getattr(config, offset, None), int):
                setattr(config, offset, 1)
        at_least = 2 * _MAX_LAYERS
    for depth in set(depths.values()):
        kept = _kept_layers(config, depth, at_least)
        _cut_layer_lists(config, depth, kept)
        for name, value in depths.items():
            if value == depth:
                setattr(config, name, len(kept))
    for name, count in _integers(config, START).items():
        setattr(config, name, min(count, 1))
    for name, stages in list(vars(config).items()):
        if STAGES.search(name) and isinstance(stages, (list, tuple)):
            setattr(config, name, type(stages)(min(stage, _MAX_LAYERS) if isinstance(stage, int) else stage for stage in stages))


def _taps_by_stage(config: PretrainedConfig) -> bool:
    """Whether it is a backbone whose features are taken at several named stages, which its depth defines."""
    taps = vars(config).get("out_indices") or vars(config).get("_out_indices")
    return isinstance(taps, (list, tuple)) and len(taps) > 1


def _kept_layers(config: PretrainedConfig, depth: int, at_least: int) -> list[int]:
    """The first layer of every kind that the per-layer fields tell apart, and as many more as make `at_least`."""
    described, marked = _per_layer(config, depth), _layer_indices(config, depth)
    kinds = [
        (*(str(values[layer]) for values in described.values()), *(str(layer in indices) for indices in marked.values()))
        for layer in range(depth)
    ]
    first = {kind: layer for layer, kind in reversed(list(enumerate(kinds)))}
    kept = set(first.values())
    for indices in marked.values():  # features taken from several layers are joined: as many must be left
        kept.update(indices if len(indices) <= _MAX_TAPS else ())
    kept.update([layer for layer in range(depth) if layer not in kept][: max(at_least - len(kept), 0)])
    return sorted(kept)


def _per_layer(config: PretrainedConfig, depth: int) -> dict[str, Any]:
    """Fields with one entry per layer."""
    return {
        name: value
        for name, value in vars(config).items()
        if (isinstance(value, (list, tuple)) or (isinstance(value, str) and "pattern" in name))
        and len(value) == depth
        and name != "architectures"
    }


def _layer_indices(config: PretrainedConfig, depth: int) -> dict[str, Any]:
    """Fields that list layers by index."""
    return {
        name: value
        for name, value in vars(config).items()
        if re.search(r"(layers?|_idx|_index(es)?|_indices|_ids|layer_list)$", name)
        and not re.search(r"token|^out_indices$|^_out_indices$", name)
        and isinstance(value, (list, tuple))
        and 0 < len(value) < depth
        and all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < depth for item in value)
    }


def _cut_layer_lists(config: PretrainedConfig, depth: int, kept: list[int]) -> None:
    indices = _layer_indices(config, depth)
    for name, value in _per_layer(config, depth).items():
        chosen = [value[layer] for layer in kept]
        setattr(config, name, "".join(chosen) if isinstance(value, str) else type(value)(chosen))
    for name, value in indices.items():
        setattr(config, name, type(value)(kept.index(layer) for layer in value if layer in kept))
    for name in ("out_indices", "_out_indices", "vision_feature_layer", "vision_feature_layers", "feature_layer", "select_layer"):
        value = vars(config).get(name)
        if isinstance(value, (list, tuple)):
            setattr(config, name, type(value)(_within(item, len(kept)) for item in value))
        elif isinstance(value, int):
            setattr(config, name, _within(value, len(kept)))


def _within(layer: int, depth: int) -> int:
    return max(min(layer, depth), -depth)


# --- experts, widths -----------------------------------------------------------------------------


def _fewer_experts(config: PretrainedConfig) -> None:
    chosen = _integers(config, TOP_K)
    for name, top_k in chosen.items():
        setattr(config, name, min(top_k, 2))
    _map_numbers(config, EXPERTS, lambda count: min(count, _MAX_EXPERTS))
    for name in _integers(config, GROUPS):
        setattr(config, name, 1)


def _map_numbers(
    config: PretrainedConfig, names: re.Pattern[str], change: Callable[[int], int], *, but: re.Pattern[str] | None = None
) -> None:
    """Change the numbers of all fields with such names; lists entry by entry."""
    for name, value in list(vars(config).items()):
        if not names.search(name) or (but is not None and but.search(name)):
            continue
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            setattr(config, name, change(value))
        elif isinstance(value, (list, tuple)) and all(isinstance(item, int) for item in value):
            setattr(config, name, type(value)(change(item) for item in value))


class _Widths:
    """One factor for all widths and head counts of a tree, so that what had to be equal or divisible stays so.

    Only stacks with attention are narrowed: the channels of a convolutional network follow rules of their own. Elsewhere
    in the tree a width changes where it repeats one that did, as projectors and heads repeat the widths they join.
    """

    def __init__(self, tree: list[tuple[str, PretrainedConfig]]) -> None:
        self._narrowed = [config for _, config in tree if _integers(config, HEADS) and _integers(config, MODEL_WIDTH)]
        self._widths = {value for config in self._narrowed for value in _values(config, WIDTH)}
        outer = {value for config in self._narrowed for value in _values(config, WIDTH, but=INNER_WIDTH)}
        heads = [value for config in self._narrowed for name, value in _integers(config, HEADS).items() if not SHARED_HEADS.search(name)]
        widest = max((value for config in self._narrowed for value in _integers(config, MODEL_WIDTH).values()), default=0)
        factor = 1
        while widest // factor > _MAX_WIDTH and all(width % (2 * factor * _ALIGNMENT) == 0 for width in outer):
            if any(count % (2 * factor) for count in heads):
                break
            factor *= 2
        self._factor = factor

    def apply(self, config: PretrainedConfig) -> None:
        """Narrow one config of the tree."""
        if any(config is part for part in self._narrowed):
            _map_numbers(config, WIDTH, self._divided, but=NOT_WIDTH)
            _map_numbers(config, HEADS, lambda count: max(count // self._factor, 1))
        else:
            _map_numbers(config, WIDTH, lambda width: self._divided(width) if width in self._widths else width, but=NOT_WIDTH)

    def _divided(self, width: int) -> int:
        """Exactly, or for an inner width that does not divide the next smaller one of whole rows."""
        exact, rest = divmod(width, self._factor)
        return max(exact // _ALIGNMENT, 1) * _ALIGNMENT if rest else exact


def _values(config: PretrainedConfig, names: re.Pattern[str], *, but: re.Pattern[str] = NOT_WIDTH) -> list[int]:
    found = _integers(config, names).items()
    return [value for name, value in found if not NOT_WIDTH.search(name) and not but.search(name) and value > _ALIGNMENT]


# --- images --------------------------------------------------------------------------------------


def _smaller_images(config: PretrainedConfig, root: PretrainedConfig) -> None:
    """Images of fewer patches, where neither windows nor pooling count on their number; small ones for convolutions."""
    size, patch = vars(config).get("image_size"), vars(config).get("patch_size")
    window = vars(config).get("window_size", 0)
    if (
        not isinstance(size, int)
        or not isinstance(window, int)
        or (window and "depths" in vars(config))  # whose windows divide what each stage leaves
        or (window and any("image_embedding_size" in vars(part) for _, part in parts(root)))  # derived from the size, elsewhere
        or "mm_tokens_per_image" in vars(root)
        or "image_grid_pinpoints" in vars(root)
    ):
        return
    if patch is None and not _integers(config, HEADS):
        config.image_size = min(size, _MAX_PIXELS)
    elif isinstance(patch, int) and size // patch > max(_MAX_PATCHES, 2 * window) and "out_indices" not in vars(config):
        config.image_size = patch * max(_MAX_PATCHES, 2 * window)


# --- vocabulary ----------------------------------------------------------------------------------


class _TokenMap:
    """A smaller vocabulary for the whole tree: ids beyond it move to its end, the same id to the same place."""

    def __init__(self, tree: list[tuple[str, PretrainedConfig]]) -> None:
        ids = sorted({token for _, config in tree for token in _token_ids(config)})
        free = iter(token for token in range(_MAX_VOCAB - 1, 0, -1) if token not in ids)
        self.moved = {token: next(free) for token in reversed(ids) if token >= _MAX_VOCAB}

    def apply(self, config: PretrainedConfig) -> None:
        _map_numbers(config, VOCAB, lambda size: min(size, _MAX_VOCAB))
        _map_numbers(config, TOKEN, lambda token: self.moved.get(token, token))


def _token_ids(config: PretrainedConfig) -> Iterator[int]:
    for name, value in vars(config).items():
        if TOKEN.search(name):
            yield from (item for item in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(item, int))
