"""timm: a config.json that names an `architecture` and its `pretrained_cfg`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft_inspect.load.model.libraries.foreign import Foreign, library, with_overrides
from peft_inspect.load.model.location import Location
from peft_inspect.load.words import did_you_mean
from peft_inspect.records import InspectionError

_INPUT_SIZE = (3, 224, 224)


def read(location: Location, config: Mapping[str, Any] | None, overrides: Mapping[str, Any]) -> Foreign | None:
    """A model of timm; None for any other."""
    if config is None or "model_type" in config or not {"architecture", "pretrained_cfg"} <= config.keys():
        return None
    timm = library("timm", location.name)
    architecture = str(config["architecture"])
    if architecture not in timm.list_models():
        raise InspectionError(
            f"timm {timm.__version__} has no architecture {architecture!r}{did_you_mean(architecture, timm.list_models())}"
        )
    values = with_overrides(config, overrides)
    arguments = {"num_classes": values.get("num_classes", 1000), **values.get("model_args", {})}

    def create() -> Any:
        return timm.create_model(architecture, pretrained=False, **arguments)

    def load() -> Any:
        from safetensors.torch import load_model

        model = create()
        load_model(model, location.checkpoint() / "model.safetensors")
        return model

    def batch() -> Mapping[str, Any]:
        import torch

        return {"x": torch.zeros(2, *values["pretrained_cfg"].get("input_size", _INPUT_SIZE))}

    return Foreign(architecture, create, load, f"{location.name} is a {architecture} of timm", batch)
