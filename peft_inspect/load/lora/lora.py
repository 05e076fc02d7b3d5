"""The LoRA configuration that was asked for: a file, flags, or both."""

from __future__ import annotations

import copy
import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peft_inspect.load.files import plain_value, read_mapping
from peft_inspect.load.lora.lora_values import check_values
from peft_inspect.load.trainers import DIALECTS, Recognised, recognise
from peft_inspect.load.words import did_you_mean, listed
from peft_inspect.reading import user_path
from peft_inspect.records import InspectionError, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

# Fields that hold lists: a plain name or `a,b` from a flag is a list, anything else a regular expression or shorthand.
_LISTS = ("target_modules", "target_parameters", "exclude_modules", "modules_to_save", "layers_pattern")
_SAVED = "adapter_config.json"
_IN_PEFTS_SPELLING = {
    **dict.fromkeys(("rank", "lora_rank", "lora_r", "lora_dim", "r_lora"), "r"),
    **dict.fromkeys(("alpha", "lora_scaling"), "lora_alpha"),
    **dict.fromkeys(("dropout",), "lora_dropout"),
    **dict.fromkeys(("targets", "lora_target", "lora_targets", "lora_target_modules", "lora_modules", "modules"), "target_modules"),
}
_OF_OLDER_VERSIONS = ("enable_lora", "merge_weights")
_NAMES = re.compile(r"[\w.-]+(?:,[\w.-]+)*")


@dataclass(frozen=True)
class Asked:
    """What the user asked to wrap the model with."""

    fields: Mapping[str, Any]  # of the PEFT config class, `peft_type` included
    file: str | None = None
    recognised: Recognised = field(default_factory=Recognised)
    notes: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()  # fields that were given as flags, which win over what the file and its trainer say

    @property
    def task_type(self) -> str | None:
        """PEFT's task type, as its name."""
        value = self.fields.get("task_type")
        return None if value is None else str(getattr(value, "value", value))


def asked(request: Request) -> Asked | None:
    """Read the LoRA file and lay the flags over it; None where neither was given.

    Raises:
        InspectionError: the file is malformed, or a field does not exist.
    """
    flags = {name: _from_flag(name, value) for name, value in request.lora_fields.items() if value is not None}
    if request.lora is None:
        if not flags:
            return None
        return Asked(_checked({"peft_type": "LORA", **flags}, "the flags"), flags=frozenset(flags))
    path = user_path(request.lora)
    path = path / _SAVED if path.is_dir() else path
    data = read_mapping(path)
    recognised = recognise(data, str(path))
    if not recognised.fields and not flags:
        raise InspectionError(f"{path} holds no field of a LoRA config: nothing in it says what to adapt")
    if not flags and recognised.for_model is None and not _looks_like_one(recognised.fields):
        unknown = min(recognised.fields.keys() - set(_field_names({"peft_type": "LORA"})), default="")
        raise InspectionError(
            f"{path}: LoraConfig has no field {unknown!r} nor most others of this file, which is of no trainer "
            f"that is followed here: {listed([dialect.trainer for dialect in DIALECTS], 20)}. "
            "Give PEFT's own fields, as --target-modules, -r and --lora-alpha"
        )
    fields, ignored = _as_peft_reads(recognised.fields, saved=recognised.for_model is None and path.name == _SAVED)
    notes = (*recognised.notes, *([f"{path}: PEFT ignores fields that it does not know: {listed(ignored)}"] if ignored else ()))
    return Asked(_checked({**fields, **flags}, str(path)), str(path), recognised, notes, frozenset(flags))


def _looks_like_one(fields: Mapping[str, Any]) -> bool:
    """Whether half of a file at least are fields of a PEFT config, be they misspelt."""
    names = _field_names({"peft_type": "LORA", **fields})
    meant = [name for name in fields if name in names or name in _IN_PEFTS_SPELLING or did_you_mean(name, names)]
    known = [name for name in meant if name in names]
    return "peft_type" in fields or (2 * len(meant) >= len(fields) and (bool(known) or len(fields) == 1))


def _as_peft_reads(fields: Mapping[str, Any], *, saved: bool) -> tuple[dict[str, Any], list[str]]:
    """The fields that this PEFT knows, and those that it ignores: in a config that it or another version of it has saved, all others.

    In a file written by hand an unknown field is a slip of the pen, unless an older PEFT had it.
    """
    fields = {"peft_type": "LORA", **fields}
    unknown = sorted(fields.keys() - set(_field_names(fields)))
    saved = (
        saved or bool({"peft_version", "auto_mapping"} & fields.keys()) or {"base_model_name_or_path", "inference_mode"} <= fields.keys()
    )
    ignored = [name for name in unknown if saved or name in _OF_OLDER_VERSIONS]
    return {name: value for name, value in fields.items() if name not in ignored}, ignored


def peft_config(fields: Mapping[str, Any]) -> Any:
    """The PEFT config object for these fields.

    Raises:
        InspectionError: PEFT refuses a value.
    """
    from peft.mapping import get_peft_config

    from peft_inspect.load.quiet import quiet

    try:
        with quiet():
            return get_peft_config(copy.deepcopy(dict(fields)))  # PEFT changes the lists of a config in place as it wraps
    except Exception as error:  # config classes check their values with errors of many types
        raise InspectionError(f"PEFT refuses this {fields['peft_type']} config: {error}") from error


def known_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a saved adapter_config.json that this PEFT knows; a newer one may have written more."""
    fields = {"peft_type": "LORA", **fields}
    names = set(_field_names(fields))
    return {name: value for name, value in fields.items() if name in names}


def _from_flag(name: str, value: Any) -> Any:
    if name in _LISTS and isinstance(value, str) and value.lower() != "all-linear" and _NAMES.fullmatch(value):
        return value.split(",")
    if name == "layers_to_transform" and isinstance(value, str) and "," in value:
        return [plain_value(index) for index in value.strip("[]").split(",")]
    if name in ("task_type", "peft_type") and isinstance(value, str):
        return value.upper()
    return plain_value(value)


def _config_class(fields: Mapping[str, Any]) -> Any:
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    name = str(getattr(fields["peft_type"], "value", fields["peft_type"]))
    if name not in PEFT_TYPE_TO_CONFIG_MAPPING:
        known = [str(kind.value) for kind in PeftType]
        raise InspectionError(f"PEFT knows no type {name!r}{did_you_mean(name, known) or f': it knows {listed(known, 40)}'}")
    return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name)]


def _field_names(fields: Mapping[str, Any]) -> list[str]:
    return [known.name for known in dataclasses.fields(_config_class(fields)) if known.init]


def _checked(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    names = _field_names(fields)
    for name in fields:
        if name not in names:
            meant = _IN_PEFTS_SPELLING.get(name.lower().replace("-", "_"))
            hint = f"; PEFT calls it {meant!r}" if meant in names else did_you_mean(name, names)
            raise InspectionError(f"{where}: {_config_class(fields).__name__} has no field {name!r}{hint}")
    check_values(fields, where)
    return dict(fields)
