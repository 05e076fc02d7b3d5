"""The values of a PEFT config's fields: PEFT takes their kinds for granted, and ends in errors that name no field where they differ."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from peft_inspect.load.bounds import MOST_LAYERS
from peft_inspect.records import InspectionError

Kind = tuple[str, Callable[[Any], bool]]  # what is needed, in words, and whether a value is one


def check_values(fields: Mapping[str, Any], where: str) -> None:
    """Every value is of the kind that its field holds, or None where PEFT takes that.

    Args:
        fields: of a PEFT config, of any type; those that are not known here hold anything.
        where: the file or flags as the user knows them, for the message.

    Raises:
        InspectionError: one is not; the message names the field, its value, and what is needed.
    """
    for name, (needed, fits) in _KINDS.items():
        value = fields.get(name)
        if not fits(value) and (value is not None or _needed(name, fields)):
            raise another_kind(where, name, value, needed)
        if too_much := _too_much(name, value):
            raise InspectionError(f"{where}: {name} {too_much}")
        for pattern in _patterns(name, value):
            if why := not_a_pattern(pattern):
                raise InspectionError(f"{where}: {name} is no regular expression: {why} in {_shown(pattern)}")


def _too_much(name: str, value: Any) -> str | None:
    """What is wrong with the amount of a value that is of the right kind; None for nothing."""
    if name in ("r", "rank_pattern"):
        ranks = value.values() if isinstance(value, Mapping) else (value,)
        rank = max((rank for rank in ranks if isinstance(rank, int)), default=0)
        return f"is {rank:,}, and no layer is wider than {_MOST_RANK:,}" if rank > _MOST_RANK else None
    if name == "layers_to_transform" and isinstance(value, list | tuple) and len(value) > MOST_LAYERS:
        return f"names {len(value):,} layers, and no model has more than {MOST_LAYERS:,}"
    if name == "layer_replication" and value and (copies := sum(max(end - start, 0) for start, end in value) + len(value)) > MOST_LAYERS:
        return f"copies {copies:,} layers, and no model has more than {MOST_LAYERS:,}"
    return None


def _needed(name: str, fields: Mapping[str, Any]) -> bool:
    """Whether None is no value of the field. Other tuners than LoRA have a rank that may be left open."""
    kind = fields.get("peft_type", "LORA")
    return name in fields and name in _NEVER_NONE and getattr(kind, "value", kind) == "LORA"


def another_kind(where: str, name: str, value: Any, needed: str) -> InspectionError:
    """The error for a value that is not what its field holds."""
    return InspectionError(f"{where}: {name} is {_shown(value)}, and {needed} is needed")


def _patterns(name: str, value: Any) -> tuple[str, ...]:
    """The regular expressions that a field holds."""
    if name in ("target_modules", "exclude_modules") and isinstance(value, str):
        return (value,)
    return tuple(value) if name in ("rank_pattern", "alpha_pattern") and value else ()


def not_a_pattern(text: str) -> str | None:
    """Why a text is no regular expression; None where it is one."""
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error)
    return None


def _shown(value: Any) -> str:
    try:
        shown = json.dumps(value, default=str)
    except (ValueError, TypeError, RecursionError):  # more digits than Python writes, keys that JSON has not
        return f"a {type(value).__name__}"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST


def _number(value: Any) -> bool:
    return isinstance(value, float) or _whole(value)


def _names(value: Any) -> bool:
    return isinstance(value, list | tuple | set) and all(isinstance(name, str) for name in value)


def _names_or_pattern(value: Any) -> bool:
    return isinstance(value, str) or _names(value)


def _indices(value: Any) -> bool:
    return _whole(value) or _tokens(value)


def _of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Mapping) and all(isinstance(key, str) and fits(entry) for key, entry in value.items())


def _name(value: Any) -> bool:
    return isinstance(getattr(value, "value", value), str)


def _flag(value: Any) -> bool:
    return value in (True, False)


def _tokens(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_whole, value))


def _tokens_by_name(value: Any) -> bool:
    return _tokens(value) or _of(_tokens)(value)


def _ranges(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(_tokens(pair) and len(pair) == 2 for pair in value)


def _rank(value: Any) -> bool:
    return _whole(value) or isinstance(value, list)  # AdaLoRA saves which of the ranks of a layer it kept


_MOST = 1 << 63  # sizes below it fit the integers of torch
_MOST_RANK = 1_000_000  # no layer is as wide: a rank above its width adds nothing
_WHOLE: Kind = ("a whole number", _whole)
_NUMBER: Kind = ("a number", _number)
_NAME: Kind = ("a name", _name)
_LIST: Kind = ("a list of names", _names)
_FLAG: Kind = ("true or false", _flag)
_NAMES: Kind = ("a list of names or one regular expression", _names_or_pattern)
_NEVER_NONE = ("r", "lora_alpha", "lora_dropout", "bias", "rank_pattern", "alpha_pattern")
_KINDS: Mapping[str, Kind] = {
    "peft_type": _NAME,
    "task_type": _NAME,
    "base_model_name_or_path": _NAME,
    "revision": _NAME,
    "bias": _NAME,
    "auto_mapping": ("a mapping with base_model_class and parent_library", lambda value: isinstance(value, Mapping)),
    "r": _WHOLE,
    "lora_alpha": _NUMBER,
    "lora_dropout": _NUMBER,
    "lora_bias": _FLAG,
    "use_dora": _FLAG,
    "use_rslora": _FLAG,
    "fan_in_fan_out": _FLAG,
    "inference_mode": _FLAG,
    "target_modules": _NAMES,
    "exclude_modules": _NAMES,
    "layers_pattern": _NAMES,
    "target_parameters": _LIST,
    "modules_to_save": _LIST,
    "trainable_token_indices": ("a list of token ids, or a mapping of names to such lists", _tokens_by_name),
    "layers_to_transform": ("a whole number or a list of them", _indices),
    "layer_replication": ("a list of ranges [from, to]", _ranges),
    "rank_pattern": ("a mapping of names to whole numbers", _of(_rank)),
    "alpha_pattern": ("a mapping of names to numbers", _of(_number)),
}
