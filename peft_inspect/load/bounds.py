"""How large a model may be, asked before it is built: a config of one line can name a billion layers, and building them never ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from peft_inspect.load.model.config_fields import DEPTH, EXPERTS, STAGES
from peft_inspect.records import InspectionError

MOST_LAYERS = 5_000  # in one stack: the deepest that were published have 1,000
MOST_MODULES = 300_000  # in one model: the largest with a module for each expert have 120,000; these take 2 GB
_MOST_EXPERTS, _MOST_LABELS, _MOST_PIXELS = 100_000, 1_000_000, 16_384
_MOST = 1 << 63  # sizes below it fit the integers of torch
_PIXELS = re.compile(r"^(image_size|img_size|input_size|image_height|image_width)$")


def require_sizes(values: Mapping[str, Any], where: str) -> None:
    """Refuse the values of a model's config that no model can have, nested configs included.

    Args:
        values: of a config.json, or what is laid over it.
        where: the file as the user knows it, for the message.

    Raises:
        InspectionError: it names the field, its value, and how much is possible.
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            require_sizes(value, where)
            continue
        most, what = _limit(str(name))
        for size in value if isinstance(value, list | tuple) else (value,):
            if isinstance(size, int) and DEPTH.match(str(name)) and size < 0:
                raise InspectionError(f"{where}: {name} is {_shown(size)}, and a model has no fewer than 0 layers")
            if isinstance(size, int) and not -_MOST < size <= most:
                raise InspectionError(f"{where}: {name} is {_shown(size)}, and no more than {most:,}{what} can be")


def _limit(name: str) -> tuple[int, str]:
    """The largest value of a field, and of what."""
    if DEPTH.match(name) or STAGES.match(name):
        return MOST_LAYERS, " layers"
    if EXPERTS.match(name):
        return _MOST_EXPERTS, " experts"
    if name == "num_labels":
        return _MOST_LABELS, " labels"
    return (_MOST_PIXELS, " pixels") if _PIXELS.match(name) else (_MOST - 1, "")


def _shown(number: int) -> str:
    """Python writes no number of more than 4,300 digits."""
    return f"{number:,}" if number.bit_length() < _MOST.bit_length() * 2 else f"a number of {number.bit_length():,} bits"


class Counted:
    """A hook of torch that counts modules as they become parts of others, and stops the building of a model that has no end."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._count = 0

    def __call__(self, module: Any, name: str, submodule: Any) -> None:  # noqa: ARG002 - as torch calls it
        """Count one.

        Raises:
            InspectionError: there are more than any model has.
        """
        self._count += 1
        if self._count > MOST_MODULES:
            raise InspectionError(f"{self._what} has more than {MOST_MODULES:,} modules: its configuration names a size that no model has")
