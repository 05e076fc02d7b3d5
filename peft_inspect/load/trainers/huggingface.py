"""A LoraConfig as PEFT writes it, alone, beside a model id, or in a section of a larger file for a Trainer.

The fields are PEFT's own, of any version: `PeftConfigMixin.from_pretrained` of peft/config.py warns of those that it does not know and
goes on without them, read in 0.21.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.reader import Reader
from peft_inspect.load.trainers.recognised import Recognised, Settings, at_revision
from peft_inspect.records import InspectionError

_KEYS = ("peft_config", "lora_config", "peft", "lora", "adapter_config", "LoraConfig")
_MODEL_KEYS = ("model_name_or_path", "model_id", "model_name", "base_model", "model")
_NESTED_MODEL_KEYS = (*_MODEL_KEYS, "name_or_path", "name", "pretrained_model_name_or_path")  # under `model:`
_MARKS = {"lora_alpha", "target_modules", "target_parameters", "peft_type"}
_NOT_FIELDS = ("_target_", "_component_")  # hydra's and torchtune's way to name the class
_DEEPEST = 3  # sections in sections
_CHECKPOINTING = ("gradient_checkpointing", "gradient_checkpointing_kwargs")


def read(data: Mapping[str, Any], where: str) -> Recognised:
    """The LoraConfig in a file; its fields are checked by the caller.

    Raises:
        InspectionError: the file holds several.
    """
    sections = dict(_sections(data))
    model = _model(data, sections)
    training = next((name for name, section in sections.items() if "gradient_checkpointing" in section), None)
    settings = _settings(data, training, where)
    name = None if _MARKS & data.keys() else _lora_section(sections, where)
    if name is None:
        own = _fields({key: value for key, value in data.items() if key not in (*_MODEL_KEYS, *_CHECKPOINTING, training)})
        return Recognised(own, model or _base(own, where), settings)
    section = sections[name]
    taken = [*_MODEL_KEYS, *_CHECKPOINTING, name.partition(".")[0], *([training.partition(".")[0]] if training else [])]
    notes = Reader(data, where, _dialect(f"a Trainer, with its LoraConfig under {name!r}", taken)).notes()
    return Recognised(_fields(section), model or _base(section, f"{where}: {name}"), settings, notes)


def _dialect(trainer: str, taken: list[str]) -> Dialect:
    """A file whose sections are called as its author liked."""
    return Dialect(trainer, "", "", frozenset(), dict.fromkeys(taken, ""), {}, lambda reader: read({}, reader.where))


def _sections(data: Mapping[str, Any], above: str = "", depth: int = _DEEPEST) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted name and contents of every mapping in a file, the outer ones first."""
    inner = {f"{above}{name}": value for name, value in data.items() if isinstance(value, Mapping)}
    yield from inner.items()
    for name, value in inner.items() if depth > 1 else ():
        yield from _sections(value, f"{name}.", depth - 1)


def _lora_section(sections: Mapping[str, Mapping[str, Any]], where: str) -> str | None:
    """The section that is a LoraConfig, by its name or by its fields."""
    named = [name for name, section in sections.items() if name.rpartition(".")[2] in _KEYS and {"r", *_MARKS} & section.keys()]
    found = named or [name for name, section in sections.items() if _MARKS & section.keys()]
    if len(found) > 1:
        raise InspectionError(f"{where} holds several LoRA configs, under {' and '.join(map(repr, found))}: give a file with one of them")
    return found[0] if found else None


def _fields(section: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name not in _NOT_FIELDS}


def _model(data: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The model that the file names, at its top, in a section of its own, or else in any other."""
    for name in _MODEL_KEYS:
        value = data.get(name)
        inner = value if isinstance(value, Mapping) else {}
        found = (
            value if isinstance(value, str) else next((inner[key] for key in _NESTED_MODEL_KEYS if isinstance(inner.get(key), str)), None)
        )
        if found is not None:
            return str(found)
    inside = (section.get(_MODEL_KEYS[0]) for section in sections.values())
    return next((value for value in inside if isinstance(value, str)), None)


def _settings(data: Mapping[str, Any], section: str | None, where: str) -> Settings:
    """Of the TrainingArguments, at the top of the file or in the section that holds them, whatever it is called."""
    held = data if section is None else dict(_sections(data))[section]
    reader = Reader(held, where if section is None else f"{where}: {section}", _dialect("a Trainer", []))
    kwargs = reader.mapping("gradient_checkpointing_kwargs")
    return Settings(gradient_checkpointing=bool(reader.take("gradient_checkpointing", False)), checkpointing_kwargs=kwargs)


def _base(fields: Mapping[str, Any], where: str) -> str | None:
    """The base that a saved adapter_config.json names."""
    reader = Reader(fields, where, _dialect("PEFT", []))
    return at_revision(reader.text("base_model_name_or_path"), reader.text("revision"))
