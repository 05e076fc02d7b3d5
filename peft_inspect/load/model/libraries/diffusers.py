"""diffusers: a config.json with a `_class_name`, or a pipeline's model_index.json that names its denoiser."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from peft_inspect.load.files import read_mapping
from peft_inspect.load.model.libraries.denoising import denoising_batch
from peft_inspect.load.model.libraries.foreign import Foreign, library, with_overrides
from peft_inspect.load.model.location import Location
from peft_inspect.load.words import did_you_mean
from peft_inspect.records import InspectionError

_DENOISERS = ("transformer", "unet", "prior", "decoder")  # the parts of a pipeline that LoRA is trained on


def read(location: Location, config: Mapping[str, Any] | None, overrides: Mapping[str, Any]) -> Foreign | None:
    """A model of diffusers; None for any other."""
    if config is None:
        return _of_pipeline(location, overrides)
    return _model(config, location, None, overrides) if "_class_name" in config else None


def _of_pipeline(location: Location, overrides: Mapping[str, Any]) -> Foreign | None:
    index = location.find("model_index.json")
    if index is None:
        return None
    parts = read_mapping(index)
    name = next((name for name in _DENOISERS if isinstance(parts.get(name), list) and parts[name][0] == "diffusers"), None)
    file = None if name is None else location.find(f"{name}/config.json")
    if name is None or file is None:
        known = ", ".join(part for part, value in parts.items() if isinstance(value, list))
        raise InspectionError(f"{location.name} is a pipeline without a denoiser that could carry LoRA; its parts are {known}")
    return _model(read_mapping(file), location, name, overrides)


def _model(config: Mapping[str, Any], location: Location, part: str | None, overrides: Mapping[str, Any]) -> Foreign:
    diffusers = library("diffusers", location.name)
    name = str(config.get("_class_name"))
    kind: Any = getattr(diffusers, name, None)
    if kind is None or not hasattr(kind, "from_config"):
        raise InspectionError(f"diffusers {diffusers.__version__} has no model class {name!r}{did_you_mean(name, dir(diffusers))}")
    values = with_overrides(config, overrides)
    where = f"{location.name}, part {part!r}" if part else location.name
    return Foreign(
        class_name=name,
        create=lambda: kind.from_config(values),
        load=lambda: kind.from_pretrained(location.checkpoint(), subfolder=part, use_safetensors=True),
        note=f"{where} is a {name} of diffusers",
        batch=lambda: denoising_batch(kind.forward, {**_defaults(kind), **values}),
    )


def _defaults(kind: Any) -> dict[str, Any]:
    """What a config leaves out: the defaults of the class."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}
