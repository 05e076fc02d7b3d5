"""Required inputs of a part that stands alone and says nothing about their shape: its first layer does."""

from __future__ import annotations

import re

import torch

from peft_inspect.batch.fields import find
from peft_inspect.batch.image import image_size
from peft_inspect.batch.plan import TEXT_LENGTH, Plan

_MAIN = ("hidden_states", "inputs_embeds", "image", "spectrogram", "audio_mel", "x", "inputs", "features")
_STATES = re.compile(r"(embeds|states|features|queries|encoding|latents)$")
_FRAMES = 8 * TEXT_LENGTH


def give(plan: Plan, name: str) -> bool:
    """Give a main input as wide as the first layer reads, a mask that hides nothing of one already given, or states as wide as the model.

    Where the forward takes a list of tensors, that is one of feature maps; a number is one. Time series are a list as well,
    of as many values as the model looks back on.

    Returns:
        Whether the input was given.
    """
    if not plan.wants(name):
        return False
    if plan.target.documented_type.get(name) == "int":
        plan.give(name, 1)
    width = find(plan.config, "hidden_size", "d_model")
    context = find(plan.config, "context_length")
    if name == "past_values" and context is not None:
        plan.give(name, [plan.floats(context)])
    elif width is not None and "list[" in str(plan.target.parameters[name].annotation):
        plan.give(name, [plan.floats(plan.size, width, TEXT_LENGTH, TEXT_LENGTH)])
    elif name in _MAIN and "input_ids" not in plan.inputs:
        shape = _shape(plan)
        if shape is not None:
            plan.give(name, plan.floats(plan.size, *shape))
    elif "mask" in name:
        main = next((plan.inputs[known] for known in _MAIN if known in plan.inputs), None)
        if main is not None:
            plan.give(name, plan.ones(plan.size, main.shape[1]).bool())
    elif _STATES.search(name) and width is not None:
        plan.give(name, plan.floats(plan.size, TEXT_LENGTH, width))
    elif (width := find(plan.config, f"max_{name}_dim", f"{name}_dim")) is not None:
        plan.give(name, plan.floats(plan.size, width))
    return name in plan.inputs


def _shape(plan: Plan) -> tuple[int, ...] | None:
    for layer in plan.target.module.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.in_channels == 1:
            return _FRAMES, 128
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Conv3d)):
            return (layer.in_channels, *image_size(plan))
        if isinstance(layer, torch.nn.Conv1d):
            return layer.in_channels, _FRAMES
        if isinstance(layer, torch.nn.Linear):
            return _FRAMES, layer.in_features
    return None
