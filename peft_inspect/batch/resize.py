"""Mends of a batch whose inputs are all there, but of another size or kind than the model says it reads."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch

from peft_inspect.batch.plan import Plan

_WIDTHS = (
    re.compile(r"shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)"),
    re.compile(r"same reduction dim, but got \[(?:\d+, )*(\d+)\] X \[(\d+), \d+\]"),
    re.compile(r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension [2-4]"),
)
_AXIS = re.compile(r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension (\d)")
_JOINED = re.compile(r"Expected size (\d+) but got size (\d+) for tensor number")
_UNPACKED = re.compile(r"too many values to unpack \(expected (\d)\)")
_IMAGE_SIZE = re.compile(r"image size \((\d+)\*(\d+)\) doesn't match model \((\d+)\*(\d+)\)")
_VIEWED = re.compile(r"shape '\[(\d+), [\d, -]+\]' is invalid for input of size")
_VIEWED_AS = re.compile(r"shape '\[([\d, ]+)\]' is invalid for input of size (\d+)")
_EMBEDDINGS = re.compile(r"index out of range .*for ([\d,]+) embeddings")
_LONGER = 16  # what a chain of strided convolutions takes from the length at a time
_CODES = 3  # dimensions of ids with several codes per step


def vocabulary(plan: Plan, complaint: str) -> bool:
    """Ids within the embeddings that read them: an encoder may have other ones than the decoder that the config speaks of."""
    found = _EMBEDDINGS.search(complaint)
    if found is None or plan.placeholders:
        return False
    size = int(found[1].replace(",", ""))
    tensors = ((name, value) for name, value in plan.inputs.items() if name.endswith("_ids") and isinstance(value, torch.Tensor))
    beyond = [(name, value) for name, value in tensors if value.max() >= size]
    for name, value in beyond:
        plan.inputs[name] = value % size
    return bool(beyond)


def width(plan: Plan, complaint: str) -> bool:
    """Another last dimension for the input that a layer found too wide or too narrow, where the complaint says what it reads."""
    for given, wanted in _widths(complaint):
        for name, value in _floating(plan):
            if value.shape[-1] == given:
                plan.inputs[name] = plan.floats(*value.shape[:-1], wanted)
                return True
    return False


def weighed_width(plan: Plan, complaint: str) -> bool:
    """The same where the complaint names what is wanted first: a norm multiplies its weight with what it is given."""
    return width(plan, _AXIS.sub(r"size of tensor a (\2) must match the size of tensor b (\1) at non-singleton dimension \3", complaint))


def stacked_width(plan: Plan, complaint: str) -> bool:
    """A part of the width, where the model puts several neighbouring frames side by side before its first layer."""
    for given, wanted in _widths(complaint):
        if any(value.shape[-1] == given for _, value in _floating(plan)):
            continue
        for name, value in _floating(plan):
            stacked, rest = divmod(given, value.shape[-1])
            if stacked > 1 and not rest and wanted % stacked == 0:
                plan.inputs[name] = plan.floats(*value.shape[:-1], wanted // stacked)
                return True
    return False


def number_of_patches(plan: Plan, complaint: str) -> bool:
    """As many patches as there are learned positions for them."""
    found = _AXIS.search(complaint)
    if found is None or found[3] != "1":
        return False
    for name, value in _floating(plan):
        if value.dim() == 3 and value.shape[1] == int(found[1]):
            plan.inputs[name] = plan.floats(value.shape[0], int(found[2]), value.shape[2])
            return True
    return False


def codes(plan: Plan, complaint: str) -> bool:
    """As many codes per step as the model has embeddings for."""
    found = _AXIS.search(complaint)
    ids = plan.inputs.get("input_ids")
    if found is None or not isinstance(ids, torch.Tensor) or ids.dim() != _CODES or ids.shape[2] != int(found[1]) or found[3] != "2":
        return False
    plan.inputs["input_ids"] = ids[:, :, :1].repeat(1, 1, int(found[2]))
    return True


def image_size(plan: Plan, complaint: str) -> bool:
    """Images in proportion, where the model puts several together before it checks their size."""
    found = _IMAGE_SIZE.search(complaint)
    if found is None:
        return False
    *_, height, width, wanted_height, wanted_width = (int(side) for side in found.groups())
    resized = False
    for name, value in plan.inputs.items():
        if isinstance(value, torch.Tensor) and value.dim() >= 4:
            sides = value.shape[-2] * wanted_height // height, value.shape[-1] * wanted_width // width
            if sides != tuple(value.shape[-2:]) and min(sides) > 0:
                plan.inputs[name] = value[..., :1, :1].expand(*value.shape[:-2], *sides).contiguous()
                resized = True
    return resized


def shorter_image(plan: Plan, complaint: str) -> bool:
    """Images of a quarter of the side, where what the model makes of every pixel does not fit into memory."""
    name = getattr(plan.target.module, "main_input_name", "")
    value = plan.inputs.get(name)
    if "allocate memory" not in complaint or not isinstance(value, torch.Tensor) or value.dim() < 4:
        return False
    plan.inputs[name] = plan.floats(*value.shape[:-2], value.shape[-2] // 4, value.shape[-1] // 4)
    return True


def longer(plan: Plan, complaint: str) -> bool:
    """A longer sound, where strided convolutions have shortened it below the size of their kernel."""
    if "Kernel size can't be greater than actual input size" not in complaint:
        return False
    for name, value in _floating(plan):
        if value.dim() == 3:
            plan.inputs[name] = plan.floats(*value.shape[:-1], value.shape[-1] * _LONGER)
            return True
    return False


def rates(plan: Plan, complaint: str) -> bool:
    """Sound as long as the features that go with it, where the model joins what it makes of both."""
    found = _JOINED.search(complaint)
    sound = plan.inputs.get("input_values")
    if found is None or not isinstance(sound, torch.Tensor):
        return False
    expected, got = int(found[1]), int(found[2])
    length = sound.shape[-1] * expected // got
    if length == sound.shape[-1]:
        return False
    plan.inputs["input_values"] = plan.floats(*sound.shape[:-1], length)
    return True


def one_sample(plan: Plan, complaint: str) -> bool:
    """One sample instead of several, where the model lays out something for one alone."""
    found = _VIEWED.search(complaint)
    if found is None or plan.size == 1 or int(found[1]) != plan.size:
        return False
    for name, value in plan.inputs.items():
        if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] == plan.size:
            plan.inputs[name] = value[:1]
    plan.size = 1
    return True


def length_of_view(plan: Plan, complaint: str) -> bool:
    """States as long as the model lays them out: a map of features has a state for each of its points."""
    found = _VIEWED_AS.search(complaint)
    if found is None:
        return False
    wanted, given = math.prod(int(side) for side in found[1].split(",")), int(found[2])
    for name, value in _floating(plan):
        if value.dim() == 3 and value.numel() == given and wanted % given == 0:
            plan.inputs[name] = plan.floats(value.shape[0], value.shape[1] * wanted // given, value.shape[2])
            return True
    return False


def list_of_images(plan: Plan, complaint: str) -> bool:
    """Images as a list per sample, where the model asks which of them are padding."""
    pixels = plan.inputs.get("pixel_values")
    if "pixel_attention_mask=None" not in complaint or not isinstance(pixels, torch.Tensor) or pixels.dim() != 4:
        return False
    if not plan.wants("pixel_attention_mask"):
        return False
    plan.inputs["pixel_values"] = pixels.unsqueeze(1)
    plan.give("pixel_attention_mask", plan.ones(plan.size, 1).bool())
    return True


def kind_of_mask(plan: Plan, complaint: str) -> bool:
    """A mask of truth values, where the model hands it to the attention as it is."""
    mask = plan.inputs.get("attention_mask")
    if "Expected attn_mask dtype" not in complaint or not isinstance(mask, torch.Tensor) or mask.dtype == torch.bool:
        return False
    plan.inputs["attention_mask"] = mask.bool()
    return True


def dimensions(plan: Plan, complaint: str) -> bool:
    """One dimension less, where the model unpacks the shape of its main input."""
    found = _UNPACKED.search(complaint)
    name = getattr(plan.target.module, "main_input_name", "")
    value = plan.inputs.get(name)
    if found is None or not isinstance(value, torch.Tensor) or value.dim() != int(found[1]) + 1:
        return False
    plan.inputs[name] = value.flatten(0, 1)
    return True


def _widths(complaint: str) -> Iterator[tuple[int, int]]:
    """What a layer was given and what it reads."""
    for pattern in _WIDTHS:
        if found := pattern.search(complaint):
            yield int(found[1]), int(found[2])


def _floating(plan: Plan) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in list(plan.inputs.items()):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            yield name, value
