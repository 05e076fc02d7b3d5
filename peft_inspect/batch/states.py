"""What no modality brings: states of another model, and the inputs of parts that stand alone, as their first layer reads them."""

from __future__ import annotations

import re

import torch

from peft_inspect.batch.documented import give_documented
from peft_inspect.batch.fields import find
from peft_inspect.batch.plan import TEXT_LENGTH, Plan

_CROSS = re.compile(
    r"(cross_?attention|cross_?attn|encoder_attn|EncDecAttention|encoder_decoder_attention|encoder_attention)", re.IGNORECASE
)
_KEY = re.compile(r"(^|[._])(k|key|kv|wk|k_proj|kv_proj|key_proj)$")
_MAIN = ("hidden_states", "inputs_embeds", "image", "spectrogram", "audio_mel", "x", "inputs", "features")
_STATES = re.compile(r"(embeds|states|features|queries|encoding|latents)$")
_MADE_BY_THE_MODEL = re.compile(r"past|cache|embeds|label|position_ids|output|head_mask|encoder_")
_FRAMES = 8 * TEXT_LENGTH


def make_cross(plan: Plan) -> None:
    """Give `encoder_hidden_states` to a decoder that stands alone, as wide as the keys of its cross-attention read them."""
    if not plan.wants("encoder_hidden_states") or "decoder_input_ids" in plan.receiver.parameters:
        return
    layers = plan.receiver.module.named_modules()
    widths = (getattr(layer, "in_features", None) for path, layer in layers if _CROSS.search(path) and _KEY.search(path))
    width = next((width for width in widths if isinstance(width, int)), None)
    if width is not None:
        plan.give("encoder_hidden_states", plan.floats(plan.size, TEXT_LENGTH // 2, width))
        plan.give("encoder_attention_mask", plan.ones(plan.size, TEXT_LENGTH // 2))


def make(plan: Plan) -> None:
    """Give what is required and still missing; where nothing is, whatever is documented and not made by the model itself."""
    for name in plan.receiver.required:
        if plan.needs(name):
            give(plan, name)
    if not plan.inputs:
        for name in plan.receiver.documented:
            if not _MADE_BY_THE_MODEL.search(name):
                give_documented(plan, name)


def missing(plan: Plan) -> tuple[str, ...]:
    """Required inputs that could not be made."""
    return tuple(name for name in plan.receiver.required if plan.needs(name))


def give(plan: Plan, name: str) -> bool:
    """Give an input as documented; else a number, a list of feature maps, or states or a mask as wide as the layers read.

    Returns:
        Whether the input was given.
    """
    if give_documented(plan, name):
        return True
    if not plan.wants(name):
        return False
    value = _value(plan, name)
    if value is not None:
        plan.give(name, value)
    return value is not None


def _value(plan: Plan, name: str) -> object:
    if plan.receiver.documented_type.get(name) == "int":
        return 1
    width = find(plan.config, "hidden_size", "d_model")
    if width is not None and "list[" in str(plan.receiver.parameters[name].annotation):
        return [plan.floats(plan.size, width, TEXT_LENGTH, TEXT_LENGTH)]
    if name in _MAIN and "input_ids" not in plan.inputs:
        shape = _read_first(plan)
        return None if shape is None else plan.floats(plan.size, *shape)
    if "mask" in name:
        main = next((plan.inputs[known] for known in _MAIN if known in plan.inputs), None)
        return None if main is None else plan.ones(plan.size, main.shape[1]).bool()
    if _STATES.search(name) and width is not None:
        return plan.floats(plan.size, TEXT_LENGTH, width)
    width = find(plan.config, f"max_{name}_dim", f"{name}_dim")
    return None if width is None else plan.floats(plan.size, width)


def _read_first(plan: Plan) -> tuple[int, ...] | None:
    """The shape, without samples, that the first layer reads."""
    for layer in plan.receiver.module.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.in_channels == 1:
            return _FRAMES, 128
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Conv3d)):
            return (layer.in_channels, *plan.image_size)
        if isinstance(layer, torch.nn.Conv1d):
            return layer.in_channels, _FRAMES
        if isinstance(layer, torch.nn.Linear):
            return _FRAMES, layer.in_features
    return None
