"""Wrapping a model with an adapter."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from peft_inspect.load.lora.lora import peft_config
from peft_inspect.load.lora.pattern_time import require_end
from peft_inspect.load.lora.rejected import rejection
from peft_inspect.load.quiet import quiet
from peft_inspect.reversible import uncollected
from peft_inspect.walk import parameters_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def is_wrapped(model: torch.nn.Module) -> bool:
    """Whether the model carries an adapter, in a PeftModel or without one."""
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    return any(isinstance(module, PeftModel | BaseTunerLayer) for module in model.modules())


def is_weightless(model: torch.nn.Module) -> bool:
    """Whether the model was built without storage for its weights."""
    return any(parameter.is_meta for parameter in parameters_of(model))


def wrap(model: torch.nn.Module, fields: Mapping[str, Any], adapter: str = "default") -> torch.nn.Module:
    """The model with the adapter that `fields` configure, freshly initialised.

    Args:
        model: changed in place where layers are replaced.
        fields: of the PEFT config class, `peft_type` included.
        adapter: the adapter's name.

    Raises:
        InspectionError: PEFT does not take this config for this model, and the message gives one that it takes; or a pattern has no end.
    """
    from peft import get_peft_model

    weightless = is_weightless(model)
    require_end(fields, model)
    config = peft_config(_without_values(fields) if weightless else fields)
    try:
        with quiet(), uncollected() if weightless else nullcontext():
            # Without low_cpu_mem_usage PEFT would allocate and initialise the adapter of a weightless model.
            wrapped: torch.nn.Module = get_peft_model(model, config, adapter, low_cpu_mem_usage=weightless)
            if weightless:
                _freeze_constants(wrapped)
                _tie_copies(wrapped, adapter)
            return wrapped
    except Exception as error:  # PEFT checks in many places, with errors of many types
        raise rejection(model, fields, config, error) from error


def _without_values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields but for an initialisation that is computed from the base weights, where there are none."""
    if not isinstance(fields.get("init_lora_weights"), str):
        return dict(fields)
    return {
        name: value for name, value in fields.items() if name not in ("init_lora_weights", "loftq_config", "eva_config", "corda_config")
    }


def _freeze_constants(model: torch.nn.Module) -> None:
    """Freeze again what adapters hold beside their weights (AdaLoRA's rank): moved to the meta device, PEFT makes it trainable."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in model.modules():
        for name in layer.other_param_names if isinstance(layer, BaseTunerLayer) else ():
            if isinstance(constants := getattr(layer, name, None), torch.nn.ParameterDict):
                constants.requires_grad_(False)


def _tie_copies(model: Any, adapter: str) -> None:
    """Tie again the trained copies that `ensure_weight_tying` ties: moved to the meta device, each gets a weight of its own."""
    from peft.utils import ModulesToSaveWrapper

    tied = getattr(model.peft_config[adapter], "modules_to_tie", None)
    if not tied:
        return
    base = model.get_base_model()
    weight = base.get_input_embeddings().modules_to_save[adapter].weight
    for path, module in base.named_modules():
        if isinstance(module, ModulesToSaveWrapper) and any(path == name or path.endswith(f".{name}") for name in tied):
            module.modules_to_save[adapter].weight = weight
