"""What a config file says about an adapter, whichever trainer wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft_inspect.load.lora.lora_values import another_kind
from peft_inspect.load.words import listed


@dataclass(frozen=True)
class Settings:
    """What a trainer does to the model besides wrapping it, as far as it decides gradients."""

    gradient_checkpointing: bool = False
    checkpointing_kwargs: Mapping[str, Any] = field(default_factory=dict)
    input_gradients: bool = False  # the trainer makes the output of the embeddings require a gradient
    left_out: tuple[str, ...] = ()  # regular expressions of parts that get no adapter, where the model has them
    frozen: tuple[str, ...] = ()  # regular expressions of parameters that the trainer freezes
    unfrozen: tuple[str, ...] = ()  # and of those it trains besides the adapter


@dataclass(frozen=True)
class Recognised:
    """A config file, read: the fields of its PEFT config and what comes with them."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None  # the base model it names
    settings: Settings = field(default_factory=Settings)
    notes: tuple[str, ...] = ()
    config_fields: Mapping[str, Any] = field(default_factory=dict)  # of the model's config, set before the model is built


class Reader:
    """Takes fields out of a trainer's file and keeps track of those that nobody asked for.

    All but `take` and `rest` raise InspectionError where a value is of another kind than they give.
    """

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self._data, self._where = data, where
        self._taken: set[str] = set()

    def take(self, name: str, default: Any = None) -> Any:
        """The field's value; `default` where it is absent or empty."""
        self._taken.add(name)
        value = self._data.get(name)
        return default if value is None else value

    def text(self, name: str) -> str | None:
        """The field's value, which is a name."""
        value = self.take(name)
        if not isinstance(value, str | None):
            raise another_kind(self._where, name, value, "a name")
        return value

    def whole(self, name: str, default: int) -> int:
        """The field's value, which is a whole number."""
        value = self.take(name, default)
        if not isinstance(value, int):
            raise another_kind(self._where, name, value, "a whole number")
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        """The field's value, which holds fields itself."""
        value = self.take(name, {})
        if not isinstance(value, Mapping):
            raise another_kind(self._where, name, value, "a mapping of fields")
        return value

    def names(self, name: str) -> list[str] | None:
        """A list of names, also when it is written as one text with commas."""
        value = self.take(name)
        entries = value.split(",") if isinstance(value, str) else value
        if entries is None:
            return None
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise another_kind(self._where, name, value, "a list of names")
        return [entry.strip() for entry in entries if entry.strip()]

    def renamed(self, names: Mapping[str, str]) -> dict[str, Any]:
        """The fields present, under the names that PEFT gives them. `names` maps trainer's to PEFT's."""
        values = {peft: self.take(name) for name, peft in names.items()}
        return {name: value for name, value in values.items() if value is not None}

    def rest(self) -> dict[str, Any]:
        """The fields that were not taken."""
        return {name: value for name, value in self._data.items() if name not in self._taken}

    def note(self, trainer: str) -> str:
        """What was recognised, and which fields do not matter here."""
        rest = sorted(name for name, value in self.rest().items() if value is not None)
        return f"{self._where} is a config of {trainer}" + (f"; these fields do not matter here: {listed(rest, 6)}" if rest else "")


def at_revision(model: str | None, revision: str | None) -> str | None:
    """The model with its revision, where it lies on the hub; trainers ignore one beside a folder."""
    on_hub = model and not model.startswith("arch:") and not Path(model).expanduser().exists()
    return f"{model}@{revision}" if on_hub and revision else model


def quantisation_note(reader: Reader) -> tuple[str, ...]:
    """A note where the file asks for a quantised base."""
    asked = [name for name in ("load_in_4bit", "load_in_8bit", "quantization_bit", "use_bnb_nested_quant") if reader.take(name)]
    return (f"{asked[0]}: the base is inspected with plain linear layers of the same names and shapes",) if asked else ()
