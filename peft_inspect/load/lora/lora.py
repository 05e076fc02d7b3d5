"""The LoRA configuration that was asked for: a file, flags, or both."""

from __future__ import annotations

import copy
import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_inspect.load.files import plain_value, read_mapping
from peft_inspect.load.lora.lora_values import check_values
from peft_inspect.load.trainers import Recognised, recognise
from peft_inspect.load.words import did_you_mean, listed
from peft_inspect.records import InspectionError, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

# Fields that hold lists: a plain name or `a,b` from a flag is a list, anything else a regular expression or shorthand.
_LISTS = ("target_modules", "target_parameters", "exclude_modules", "modules_to_save", "layers_pattern")
_NAMES = re.compile(r"[\w.-]+(?:,[\w.-]+)*")


@dataclass(frozen=True)
class Asked:
    """What the user asked to wrap the model with."""

    fields: Mapping[str, Any]  # of the PEFT config class, `peft_type` included
    file: str | None = None
    recognised: Recognised = field(default_factory=Recognised)
    notes: tuple[str, ...] = ()

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
        return Asked(_checked({"peft_type": "LORA", **flags}, "the flags"))
    path = Path(request.lora).expanduser()
    data = read_mapping(path / "adapter_config.json" if path.is_dir() else path)
    recognised = recognise(data, str(path))
    if not recognised.fields and not flags:
        raise InspectionError(f"{path} holds no field of a LoRA config: nothing in it says what to adapt")
    fields = {"peft_type": "LORA", **recognised.fields}
    notes = list(recognised.notes)
    if "peft_version" in fields or "auto_mapping" in fields:
        unknown = sorted(set(fields) - set(_field_names(fields)))
        fields = known_fields(fields)
        if unknown:
            notes.append(f"{path} was written by a newer PEFT; fields that this one does not know are ignored: {listed(unknown)}")
    return Asked(_checked({**fields, **flags}, str(path)), str(path), recognised, tuple(notes))


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
            raise InspectionError(f"{where}: {_config_class(fields).__name__} has no field {name!r}{did_you_mean(name, names)}")
    check_values(fields, where)
    return dict(fields)
