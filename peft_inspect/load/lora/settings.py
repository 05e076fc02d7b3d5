"""What trainers do to a model besides wrapping it, as far as it decides gradients."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from peft_inspect.load.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from peft_inspect.load.trainers import Settings


def without_left_out(model: torch.nn.Module, fields: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The LoRA fields with the parts excluded that the trainer leaves out, as far as this model has them."""
    paths = [path for path, _ in model.named_modules()]
    present = [pattern for pattern in settings.left_out if any(re.search(rf"(^|\.)({pattern})(\.|$)", path) for path in paths)]
    if not present or fields.get("exclude_modules"):
        return dict(fields)
    return {**fields, "exclude_modules": rf"(.*\.)?({'|'.join(present)})(\..*)?"}


def apply(model: torch.nn.Module, settings: Settings) -> tuple[str, ...]:
    """Put a trainer's settings on a wrapped model, in the order in which trainers do; returns notes on what was applied."""
    notes: list[str] = []
    for patterns, trainable in ((settings.frozen, False), (settings.unfrozen, True)):
        touched = _set_requires_grad(model, patterns, trainable=trainable)
        if patterns:
            notes.append(f"{'unfroze' if trainable else 'froze'} {touched} parameters, as the file says")
    if settings.gradient_checkpointing:
        notes.append(_enable_checkpointing(model, settings))
    return tuple(notes)


def _set_requires_grad(model: torch.nn.Module, patterns: tuple[str, ...], *, trainable: bool) -> int:
    touched = 0
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and any(re.search(pattern, name) for pattern in patterns):
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
