"""What a config file says about an adapter, whichever trainer wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Settings:
    """What a trainer does to the model besides wrapping it, as far as it decides gradients."""

    gradient_checkpointing: bool = False
    checkpointing_kwargs: Mapping[str, Any] = field(default_factory=dict)
    input_gradients: bool = False  # the trainer makes the embeddings' output require a gradient
    frozen: tuple[str, ...] = ()  # regular expressions of parameters that the trainer freezes
    unfrozen: tuple[str, ...] = ()  # and of those it trains besides the adapter


@dataclass(frozen=True)
class Recognised:
    """A config file, read: the fields of its PEFT config and what comes with them."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None  # the base model it names
    settings: Settings = field(default_factory=Settings)
    notes: tuple[str, ...] = ()
    trust_remote_code: bool = False  # what the file asks for; only the user's own flag allows it


def recognise(data: Mapping[str, Any], where: str) -> Recognised:
    """Read a config file by its fields: a trainer's, or PEFT's own.

    Args:
        data: the contents of the file.
        where: the file as the user knows it, for messages.
    """
    return Recognised(fields=data)
