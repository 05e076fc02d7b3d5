"""A LoraConfig as PEFT writes it, alone, beside a model id, or under a key of a larger file for a Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft_inspect.load.trainers.recognised import Reader, Recognised, Settings, at_revision

_KEYS = ("peft_config", "lora_config", "peft", "lora", "adapter_config", "LoraConfig")
_MODEL_KEYS = ("model_name_or_path", "model_id", "model_name", "base_model", "model")
_NESTED_MODEL_KEYS = (*_MODEL_KEYS, "name_or_path", "name", "pretrained_model_name_or_path")  # under `model:`
_MARKS = {"r", "lora_alpha", "target_modules", "target_parameters", "peft_type"}
_NOT_FIELDS = ("_target_", "_component_")  # hydra's and torchtune's way to name the class


def read(data: Mapping[str, Any], where: str) -> Recognised:
    """The LoraConfig in a file; its fields are checked by the caller."""
    reader = Reader(data)
    key = next((key for key in _KEYS if isinstance(data.get(key), Mapping) and _MARKS & data[key].keys()), None)
    model = _model(reader)
    settings = _settings(reader)
    if key is not None:
        fields = {name: value for name, value in reader.take(key).items() if name not in _NOT_FIELDS}
        return Recognised(fields, model, settings, (reader.note(f"a Trainer, with its LoraConfig under {key!r}", where),))
    own = {name: value for name, value in reader.rest().items() if name not in _NOT_FIELDS}
    return Recognised(own, model or _base(own), settings)


def _model(reader: Reader) -> str | None:
    """The model that the file names, at its top or in a section of its own."""
    for name in _MODEL_KEYS:
        value = reader.take(name)
        keys = _NESTED_MODEL_KEYS if isinstance(value, Mapping) else ()
        found = value if isinstance(value, str) else next((value[key] for key in keys if isinstance(value.get(key), str)), None)
        if found is not None:
            return found
    return None


def _settings(reader: Reader) -> Settings:
    """Of the TrainingArguments, at the top of the file or in the section that holds them, whatever it is called."""
    sections = ((name, value) for name, value in reader.rest().items() if isinstance(value, Mapping))
    section = next((name for name, value in sections if "gradient_checkpointing" in value), None)
    training: Mapping[str, Any] = {} if section is None else reader.take(section)
    checkpointing = reader.take("gradient_checkpointing", training.get("gradient_checkpointing", False))
    kwargs = reader.take("gradient_checkpointing_kwargs", training.get("gradient_checkpointing_kwargs") or {})
    return Settings(gradient_checkpointing=bool(checkpointing), checkpointing_kwargs=kwargs)


def _base(fields: Mapping[str, Any]) -> str | None:
    """The base that a saved adapter_config.json names."""
    return at_revision(fields.get("base_model_name_or_path"), fields.get("revision"))
