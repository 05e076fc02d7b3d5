"""What a config file says about an adapter, whichever trainer wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from peft_inspect.reading import user_path


@dataclass(frozen=True)
class Settings:
    """What a trainer does to the model besides wrapping it, as far as it decides gradients."""

    gradient_checkpointing: bool = False
    checkpointing_kwargs: Mapping[str, Any] = field(default_factory=dict)
    input_gradients: bool = False  # the trainer makes the output of the embeddings require a gradient
    trainable: tuple[tuple[str, bool], ...] = ()  # in order: a regular expression of parameters, and whether they train from here on
    linear_dropout: float = 0.0  # dropout of the adapters on layers, where fused experts, which can have none, get none


@dataclass(frozen=True)
class Chosen:
    """What a trainer makes of a model that it has loaded."""

    fields: Mapping[str, Any]  # of the PEFT config
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recognised:
    """A config file, read: the fields of its PEFT config and what comes with them."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None  # the base model it names
    settings: Settings = field(default_factory=Settings)
    notes: tuple[str, ...] = ()
    config_fields: Mapping[str, Any] = field(default_factory=dict)  # of the model's config, set before the model is built
    for_model: Callable[[Any, Mapping[str, Any]], Chosen] | None = None  # the trainer's own search in the base model, with `fields`
    resumed: str | None = None  # a trained adapter that is loaded and trained on; its own config decides all


def at_revision(model: str | None, revision: str | None) -> str | None:
    """The model with its revision, where it lies on the hub; trainers ignore one beside a folder."""
    on_hub = model and not model.startswith("arch:") and not user_path(model).exists()
    return f"{model}@{revision}" if on_hub and revision else model


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
