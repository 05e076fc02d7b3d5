"""Reading a tree of configs by the names of its fields, whatever model type they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from transformers import PretrainedConfig

VISION = re.compile(r"vision|visual|image|vit|pixel")
AUDIO = re.compile(r"audio|speech|acoustic|sound|encoder")
_SIZES = ("image_size", "img_size", "input_size", "crop_size", "pretrain_image_size", "max_img_size")
TEXT = re.compile(r"text|language|llm|lm|decoder")


def parts(config: PretrainedConfig | None, prefix: str = "") -> Iterator[tuple[str, PretrainedConfig]]:
    """The config and every config nested in it, outermost first, with its dotted path."""
    if config is None:
        return
    yield prefix, config
    for name, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            yield from parts(value, f"{prefix}.{name}" if prefix else name)


def find(config: PretrainedConfig | None, *names: str, within: re.Pattern[str] | None = None) -> Any:
    """The first of these fields that is set: in parts whose path matches `within`, then at the root, then anywhere.

    Returns:
        None where no part has any of them.
    """
    tree = list(parts(config))
    if within is not None:
        tree.sort(key=lambda part: (not within.search(part[0]), part[0] != ""))
    for _, part in tree:
        for name in names:
            value = getattr(part, name, None)
            if value is not None:
                return value
    return None


def pair(value: Any) -> tuple[int, int] | None:
    """A height and a width from a number, a pair or a dictionary as image sizes are written; None where it is none of them."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, dict):
        side = value.get("shortest_edge") or value.get("longest_edge")
        return (side, side) if side else (value["height"], value["width"]) if "height" in value else None
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, int) for item in value):
        return (value[-2], value[-1]) if len(value) > 1 else (value[0], value[0])
    return None


def side(value: Any, default: int) -> int:
    """The height of what `pair` reads."""
    size = pair(value)
    return default if size is None else size[0]


def image_size(config: PretrainedConfig | None, part: str = "") -> tuple[int, int] | None:
    """Height and width that the position embeddings are made for; None where no field says so.

    `part` names the vision tower that is meant, where there are several.
    """
    within = re.compile(part) if part else VISION
    ratios = find(config, "scaled_images_ratios")
    if ratios:
        side = round(find(config, "patch_size") / min(ratios))
        return side, side
    stated = (find(config, name, within=within) for name in _SIZES)
    return next((size for size in map(pair, stated) if size is not None), None)


def token_ids(config: PretrainedConfig | None) -> dict[str, int]:
    """Every special or placeholder token id in the tree, by field name; outer configs win."""
    found: dict[str, int] = {}
    for _, part in parts(config):
        for name, value in vars(part).items():
            if re.search(r"token_(id|index|idx|ids)(_\w+)?$", name):
                for item in value if isinstance(value, (list, tuple)) else [value]:
                    if isinstance(item, int):
                        found.setdefault(name, item)
    return found
