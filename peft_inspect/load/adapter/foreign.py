"""Configs that other tools write beside their adapters, as the PEFT config that builds the same layers.

mlx-lm: `save_config` of mlx_lm/utils.py and `load_adapters` of mlx_lm/tuner/utils.py, read in 0.32.0 (d78bf58e, August 2026).
ms-swift's own tuner: `SwiftConfig` of swift/tuners/utils.py and `SwiftModel.save_pretrained` of swift/tuners/base.py, read in 4.6.0.dev0
(3602360a5, August 2026).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft_inspect.load.trainers import DIALECTS
from peft_inspect.records import TensorInfo

_MLX_WEIGHTS = "adapters.safetensors"
_SIDES = ("lora_a", "lora_b", "m")
_SHARED = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "modules_to_save",
    "bias",
    "use_rslora",
    "use_dora",
    "base_model_name_or_path",
)


def weights_name(config: Mapping[str, Any]) -> str | None:
    """The file with the weights beside a config of another tool; None where the config is none that is known."""
    if "lora_parameters" in config or "fine_tune_type" in config:
        return _MLX_WEIGHTS
    return "adapter_model.safetensors" if config.get("swift_type") == "LORA" else None


def as_peft(config: Mapping[str, Any], tensors: Sequence[TensorInfo], where: str) -> dict[str, Any]:
    """The PEFT config of an adapter of another tool.

    Args:
        config: for which `weights_name` gives a file.
        tensors: of that file.
        where: the config as the user knows it, for messages.

    Raises:
        InspectionError: the config trains no LoRA, or a value is of another kind than its field holds.
    """
    if config.get("swift_type") == "LORA":
        return {"peft_type": "LORA", **{name: config[name] for name in _SHARED if config.get(name) is not None}}
    mlx = next(dialect for dialect in DIALECTS if dialect.trainer == "MLX")
    fields = mlx.recognised(config, where).fields
    paths = sorted({tensor.key.rpartition(".")[0] for tensor in tensors if tensor.key.rpartition(".")[2] in _SIDES})
    names = sorted({path.rpartition(".")[2] for path in paths})
    blocks = sorted({int(part) for path in paths for part in path.split(".") if part.isdigit()})
    return {
        "peft_type": "LORA",
        **fields,
        "task_type": "CAUSAL_LM",
        "target_modules": names,
        "layers_to_transform": blocks or None,
        "base_model_name_or_path": config.get("model"),
    }
