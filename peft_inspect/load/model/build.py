"""A configuration → a model: without weights, with random ones, or with those of the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn.modules.module import register_module_module_registration_hook
from transformers import PretrainedConfig, PreTrainedModel

from peft_inspect.internals import FROM_CONFIG, find
from peft_inspect.load.bounds import Counted
from peft_inspect.load.model.memory import require_memory
from peft_inspect.load.model.model_class import config_for
from peft_inspect.load.quiet import quiet
from peft_inspect.records import InspectionError, text_of
from peft_inspect.reversible import hooked, uncollected

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Weights = Literal["none", "random", "pretrained"]
_INITIAL = 0.02  # the standard deviation that most architectures start from


@dataclass(frozen=True)
class Blueprint:
    """What is to be built.

    `checkpoint` gives the folder that holds the weights, and is asked only when they are loaded; None: there are none.
    """

    name: str  # as the user named it
    config: PretrainedConfig
    model_class: type[PreTrainedModel]
    checkpoint: Callable[[], Path] | None = None


def build(blueprint: Blueprint, weights: Weights) -> PreTrainedModel:
    """The model in train mode; on the meta device where `weights` is "none".

    Raises:
        InspectionError: it does not build from this configuration, or its weights do not fit into memory.
    """
    if weights == "pretrained":
        model = _with_checkpoint(blueprint)
    elif weights == "random":
        require_memory(_on_meta(blueprint, blueprint.config.dtype), blueprint.name)
        model = _create(blueprint, blueprint.config.dtype, "cpu")
        _fill_zeros(model)
    else:
        model = _on_meta(blueprint, weightless_dtype(blueprint.config))
    return model.train()


def _fill_zeros(model: PreTrainedModel) -> None:
    """Random values for what an initialisation leaves at zero and every checkpoint has trained: gates, query tokens, biases.

    A gate of zero in the place of a trained one would let no gradient through.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and not parameter.any():
            torch.nn.init.normal_(parameter, std=_INITIAL)


def weightless_dtype(config: PretrainedConfig) -> torch.dtype:
    """What the config says, but for experts: grouped matrix products want bfloat16."""
    stated = next((part.dtype for part in (config, *_parts(config)) if part.dtype is not None), torch.float32)
    return torch.bfloat16 if stated == torch.float32 and _has_experts(config) else stated


def _parts(config: PretrainedConfig) -> list[PretrainedConfig]:
    return [part for name in config.sub_configs if isinstance(part := getattr(config, name, None), PretrainedConfig)]


def _has_experts(config: PretrainedConfig) -> bool:
    return any("expert" in key for part in (config, *_parts(config)) for key, value in vars(part).items() if value)


def _on_meta(blueprint: Blueprint, dtype: torch.dtype | None) -> PreTrainedModel:
    with uncollected():
        return _create(blueprint, dtype, "meta")


def _create(blueprint: Blueprint, dtype: torch.dtype | None, device: str) -> PreTrainedModel:
    counting = partial(register_module_module_registration_hook, Counted(blueprint.name))
    try:
        with quiet(), torch.device(device), hooked(counting):
            return _made(blueprint.model_class, config_for(blueprint.model_class, blueprint.config), dtype)
    except InspectionError:
        raise
    except ImportError as error:
        raise InspectionError(f"{blueprint.model_class.__name__} needs a package that is not installed: {_summary(error)}") from error
    except Exception as error:  # model code of any library version raises anything on a value it cannot use
        raise InspectionError(
            f"{blueprint.model_class.__name__} does not build from the configuration of {blueprint.name}: {_summary(error)}"
        ) from error


def _made(model_class: type[PreTrainedModel], config: PretrainedConfig, dtype: torch.dtype | None) -> PreTrainedModel:
    """The model as transformers' auto classes make it from a config."""
    if find("from_config") is not None:
        model: PreTrainedModel = getattr(model_class, FROM_CONFIG)(config, dtype=dtype)
        return model
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype or before)
        return model_class(config)
    finally:
        torch.set_default_dtype(before)


def _with_checkpoint(blueprint: Blueprint) -> PreTrainedModel:
    if blueprint.checkpoint is None:
        raise InspectionError(f"{blueprint.name} has no checkpoint to load: use --weights none or --weights random")
    require_memory(_on_meta(blueprint, blueprint.config.dtype), blueprint.name)
    folder = blueprint.checkpoint()
    if not any(folder.glob("*.safetensors")):
        raise InspectionError(_no_safetensors(blueprint.name, folder))
    try:
        with quiet():
            model: PreTrainedModel = blueprint.model_class.from_pretrained(
                folder, config=config_for(blueprint.model_class, blueprint.config), dtype="auto", use_safetensors=True
            )
            return model
    except Exception as error:  # a damaged file, shapes that do not fit the config, a shard that is missing
        raise InspectionError(f"the checkpoint of {blueprint.name} does not load: {_summary(error)}") from error


def _no_safetensors(name: str, folder: Path) -> str:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
    if not pickles:
        return f"{name} has no weights in safetensors files, and pickled ones are not loaded: use --weights none or --weights random"
    return (
        f"{name} has its weights only in pickle files ({', '.join(pickles[:3])}), which can run any code when they are "
        "read: they are not loaded. Where you trust them, convert them with save_pretrained, "
        "or load them in a callable of your own, as train.py:build_model"
    )


def _summary(error: Exception) -> str:
    return next(line.strip() for line in text_of(error).splitlines() if line.strip())
