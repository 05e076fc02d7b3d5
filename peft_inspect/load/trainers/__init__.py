"""Configuration files of trainers, each recognised by its own fields. One file per trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft_inspect.load.trainers import axolotl, huggingface, llama_factory, torchtune, trl
from peft_inspect.load.trainers.recognised import Recognised, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRAINERS = (axolotl, llama_factory, torchtune, trl)

__all__ = ["Recognised", "Settings", "recognise"]


def recognise(data: Mapping[str, Any], where: str) -> Recognised:
    """Read a config file by its fields: a trainer's, or a PEFT config as it stands.

    Args:
        data: the contents of the file.
        where: the file as the user knows it, for messages.

    Raises:
        InspectionError: the file is a trainer's and trains no adapter.
    """
    for trainer in _TRAINERS:
        recognised: Recognised | None = trainer.read(data, where)
        if recognised is not None:
            return recognised
    return huggingface.read(data, where)
