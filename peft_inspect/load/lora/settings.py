"""What trainers do to a model besides wrapping it, as far as it decides gradients."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from peft_inspect.load.lora.pattern_time import Pattern, require_quick
from peft_inspect.load.quiet import quiet
from peft_inspect.load.trainers.recognised import Chosen
from peft_inspect.load.trainers.search import expert_parameters, linear_names
from peft_inspect.load.words import listed
from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    import torch

    from peft_inspect.load.lora.lora import Asked
    from peft_inspect.load.trainers import Settings


def as_the_trainer_builds(model: torch.nn.Module, lora: Asked) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The LoRA fields with what the trainer finds in this model before it wraps it; flags win over that. With notes on what it found.

    Raises:
        InspectionError: it finds nothing.
    """
    chosen = lora.recognised.for_model(model, lora.fields) if lora.recognised.for_model else Chosen({})
    found = {name: value for name, value in chosen.fields.items() if name not in lora.flags}
    fields = {**lora.fields, **found}
    if _dropout_on_layers(model, lora):
        fields["lora_dropout"] = 0.0  # PEFT refuses it for fused experts; the layers get theirs after the wrapping
    if lora.recognised.for_model and not fields.get("target_modules") and not fields.get("target_parameters"):
        raise InspectionError(
            f"{lora.file}: nothing in {type(model).__name__} is what this file adapts; its linear layers are called "
            f"{listed(linear_names(model), 12)}: say which with --target-modules"
        )
    return fields, chosen.notes


def apply(model: torch.nn.Module, lora: Asked) -> tuple[str, ...]:
    """Put a trainer's settings on a wrapped model, in the order in which trainers do; returns notes on what was applied."""
    settings, notes = lora.recognised.settings, []
    if _dropout_on_layers(model, lora):
        notes.append(_add_dropout(model, settings.linear_dropout))
    names = [name for name, _ in model.named_parameters()]
    require_quick((Pattern("the parameters to train", pattern, pattern, "search") for pattern, _ in settings.trainable), names)
    for pattern, trainable in settings.trainable:
        touched = _set_requires_grad(model, pattern, trainable=trainable)
        notes.append(f"{'unfroze' if trainable else 'froze'} {touched} parameters, as the file says")
    if settings.gradient_checkpointing:
        notes.append(_enable_checkpointing(model, settings))
    return tuple(notes)


def _dropout_on_layers(model: torch.nn.Module, lora: Asked) -> bool:
    return bool(lora.recognised.settings.linear_dropout) and "lora_dropout" not in lora.flags and bool(expert_parameters(model))


def _add_dropout(model: Any, probability: float) -> str:
    """Dropout in the adapters on layers, none in those on fused experts."""
    import torch
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), torch.nn.Linear):
            for adapter in module.lora_dropout:
                module.lora_dropout[adapter] = torch.nn.Dropout(probability)
    for config in model.peft_config.values():
        config.lora_dropout = probability
    return f"lora_dropout={probability} is on the layers alone: fused experts can have none, and the trainer leaves it out there"


def _set_requires_grad(model: torch.nn.Module, pattern: str, *, trainable: bool) -> int:
    touched = 0
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and re.search(pattern, name):
            parameter.requires_grad_(trainable)
            touched += 1
    return touched


def _enable_checkpointing(model: Any, settings: Settings) -> str:
    kwargs = dict(settings.checkpointing_kwargs)
    try:
        with quiet():
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs or None)
            if settings.input_gradients:
                model.enable_input_require_grads()
    except (AttributeError, NotImplementedError, ValueError) as error:  # models without blocks or without input embeddings
        return f"gradient checkpointing, which the file asks for, is not applied: {error}"
    return f"gradient checkpointing is on, as the file says{f' ({kwargs})' if kwargs else ''}"
