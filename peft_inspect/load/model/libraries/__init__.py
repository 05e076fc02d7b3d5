"""Models of other libraries, each recognised by the files that the library writes. One file per library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft_inspect.load.model.libraries import diffusers, timm
from peft_inspect.load.model.libraries.foreign import Foreign, build
from peft_inspect.load.model.location import Location

__all__ = ["Foreign", "build", "recognise"]


def recognise(location: Location, config: Mapping[str, Any] | None, overrides: Mapping[str, Any]) -> Foreign | None:
    """The model of another library that lies there; None where it is one of transformers, or nothing known.

    Args:
        location: the folder or repository.
        config: the contents of its config.json; None where it has none.
        overrides: config values by key.

    Raises:
        InspectionError: it is recognised, and its library is not installed or refuses the config.
    """
    for library in (diffusers, timm):
        found: Foreign | None = library.read(location, config, overrides)
        if found is not None:
            return found
    return None
