"""Writing an adapter of another tool as PEFT keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_inspect.load.adapter.adapters import CONFIG, WEIGHTS
from peft_inspect.load.adapter.foreign import weights_name
from peft_inspect.load.files import read_mapping
from peft_inspect.records import Conversion, InspectionError

if TYPE_CHECKING:
    import torch

_ALPHA, _UP = ".alpha", ".lora_up.weight"


def write_converted(source: str, conversion: Conversion, config: Mapping[str, Any], folder: Path) -> None:
    """Write the weights of an adapter under PEFT's names, into a folder that is not the adapter's own.

    Args:
        source: the folder of the adapter.
        conversion: which tensors get which names; the others are kept as they are, but for those without a place in PEFT's format.
        config: the PEFT config that goes with them, whose scaling the tensors are brought to.
        folder: where to; made if need be.

    Raises:
        InspectionError: the folder is the adapter's own, or a file cannot be read or written.
    """
    from safetensors.torch import load_file, save_file

    if folder.resolve() == Path(source).resolve():
        raise InspectionError(f"--suggest {folder} would write over the adapter itself: name another folder")
    read = read_mapping(Path(source) / CONFIG)
    name = WEIGHTS if read.get("peft_type") else weights_name(read) or WEIGHTS
    try:
        tensors = load_file(Path(source) / name)
        folder.mkdir(parents=True, exist_ok=True)
        converted = {
            conversion.keys[key]: _converted(key, value, tensors, conversion, config)
            for key, value in tensors.items()
            if key in conversion.keys
        }
        kept = {key: value for key, value in tensors.items() if key not in conversion.keys and not key.endswith(_ALPHA)}
        save_file({**kept, **converted}, folder / WEIGHTS, metadata={"format": "pt"})
    except OSError as error:
        raise InspectionError(f"{folder} cannot be written: {error.strerror or error}") from error


def _converted(
    key: str, value: torch.Tensor, tensors: Mapping[str, torch.Tensor], conversion: Conversion, config: Mapping[str, Any]
) -> torch.Tensor:
    """A tensor as PEFT holds it; kohya's scaling, which may differ from layer to layer, is put into the second factor."""
    turned = value.T.contiguous() if conversion.transposed else value
    alpha = tensors.get(f"{key.removesuffix(_UP)}{_ALPHA}") if key.endswith(_UP) else None
    if alpha is None:
        return turned
    own = float(alpha) / turned.shape[1]
    return turned * (own / (float(config["lora_alpha"]) / int(config["r"])))
