"""Configuration files of trainers, each recognised by what only it has. One file per trainer, and nothing else lists them."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from peft_inspect.load.trainers import huggingface, others
from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.recognised import Chosen, Recognised, Settings
from peft_inspect.load.words import listed

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODULES = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
DIALECTS: tuple[Dialect, ...] = tuple(module.DIALECT for module in _MODULES if hasattr(module, "DIALECT"))

__all__ = ["DIALECTS", "Chosen", "Recognised", "Settings", "recognise"]


def recognise(data: Mapping[str, Any], where: str) -> Recognised:
    """Read a config file by what only one trainer has in it: a trainer's, or a PEFT config as it stands.

    Where more than one could be meant, the one with more fields of its own is taken, and a note says so.

    Args:
        data: the contents of the file.
        where: the file as the user knows it, for messages.

    Raises:
        InspectionError: the file is a trainer's and trains no adapter, or one of a trainer that is not followed.
    """
    found = {dialect: evidence for dialect in DIALECTS if (evidence := dialect.evidence(data))}
    if not found:
        others.refuse(data, where)
        return huggingface.read(data, where)
    taken, *passed = sorted(found, key=lambda dialect: -len(found[dialect]))
    recognised = taken.recognised(data, where)
    if not passed:
        return recognised
    rivals = " or ".join(f"{dialect.trainer} (by {listed(found[dialect], 3)})" for dialect in passed)
    note = f"{where} is read as {taken.trainer}'s, by {listed(found[taken], 3)}; it could have been one of {rivals}"
    return Recognised(**{**vars(recognised), "notes": (*recognised.notes, note)})
