"""Inputs of the towers beside the text, and the placeholders that take their features."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from peft_inspect.batch import audio, ids, image, video
from peft_inspect.batch.fields import find
from peft_inspect.batch.plan import TEXT_LENGTH, Placeholder, Plan
from peft_inspect.batch.probe import first_accepted, method

if TYPE_CHECKING:
    from peft_inspect.batch.image import Layout

_SECOND_TEXT = re.compile(r"^(qformer|protein|prompt|query|question)_input_ids$")  # read by a tower of its own
_GUESS = 2  # placeholders where no method of the model counts features; the trial corrects it
_MORE = 4  # layouts that a trial of the whole forward goes on with


@dataclass(frozen=True)
class Modality:
    """One kind of input: its main argument, how it is read, the token its features replace, and ways to make it."""

    name: str
    argument: str
    methods: tuple[str, ...]
    token: re.Pattern[str]
    start: re.Pattern[str]
    end: re.Pattern[str]
    layouts: Callable[[Plan], Iterable[Layout]]


def _modality(
    name: str, argument: str, methods: tuple[str, ...], words: str, short: str, layouts: Callable[[Plan], Iterable[Layout]]
) -> Modality:
    return Modality(
        name,
        argument,
        methods,
        re.compile(rf"^({words})(_context|_patch|_pad|_soft)?_token_(id|index)$"),
        re.compile(rf"^({words}|vision)_(start|bos|begin)_token_(id|index)$|^bo{short}_token_(id|index)$"),
        re.compile(rf"^({words}|vision)_(end|eos)_token_(id|index)$|^eo{short}_token_(id|index)$"),
        layouts,
    )


def _standalone(plan: Plan) -> Iterable[Layout]:
    """Patches of a vision tower that stands alone."""
    return image.layouts(plan) if plan.wants("grid_thw") else ({},)


_VIDEO = _modality("video", "pixel_values_videos", ("get_video_features",), "video", "v", video.layouts)
MODALITIES = (
    _modality("image", "pixel_values", ("get_image_features", "get_image_tokens"), "image|img|media|vision", "i", image.layouts),
    _modality("image", "hidden_states", (), "image", "i", _standalone),
    _modality("image", "flattened_patches", (), "image|img", "i", image.flattened),
    _VIDEO,
    _modality("audio", "input_features", ("get_audio_features", "get_speech_features"), "audio|sound|speech", "a", audio.features),
    _modality("audio", "input_values", ("get_audio_features", "get_speech_features"), "audio|sound|speech", "a", audio.waveforms),
)


def make(plan: Plan) -> None:
    """Give every modality that the forward takes, and note the placeholders its features need."""
    for name in plan.target.parameters:
        second = _SECOND_TEXT.match(name)
        if second and plan.wants(name):
            vocab = find(plan.config, "vocab_size", within=re.compile(second[1]))
            plan.give(name, ids.text(plan, TEXT_LENGTH // 2, vocab=vocab))
            plan.give(f"{second[1]}_attention_mask", plan.ones(plan.size, TEXT_LENGTH // 2))
    for modality in MODALITIES:
        if plan.wants(modality.argument):
            _give(plan, modality)


def _give(plan: Plan, modality: Modality) -> None:
    read = method(plan, *modality.methods)
    token = _token(plan, modality.token)
    if modality.argument == "pixel_values" and token is None and video.is_video_model(plan):
        modality = replace(_VIDEO, argument="pixel_values", layouts=partial(video.layouts, name="pixel_values"))
        read, token = method(plan, *modality.methods), _token(plan, modality.token)
    layouts = [*modality.layouts(plan), *(image.layouts(plan) if modality.name == "video" and modality.argument == "pixel_values" else ())]
    if token is None or "input_ids" not in plan.target.parameters:
        plan.inputs.update(layouts[0])
        plan.alternatives = layouts[1:]
        return
    plan.alternatives = [layout for layout in layouts if None in layout.values()] if read is not None else layouts[1:]
    layouts = [layout for layout in layouts if None not in layout.values()]
    accepted = first_accepted(plan, read, layouts) if read is not None else (layouts[0], _GUESS * plan.size)
    if isinstance(accepted, str):
        plan.notes.append(f"{modality.name} not given: {modality.methods[0]} took none of the layouts tried ({accepted})")
        return
    layout, count = accepted
    plan.inputs.update(layout)
    after = next(index for index, tried in enumerate(layouts, start=1) if tried is layout)
    plan.alternatives += layouts[after : after + _MORE] if read is not None else []
    run = Placeholder(
        modality.name, token, count // plan.size, _token(plan, modality.start), _token(plan, modality.end), counted=read is not None
    )
    plan.placeholders.append(run)


def placeholder_tokens(plan: Plan) -> set[int]:
    """Tokens that stand for the features of another modality; only where the forward takes one."""
    found = {_token(plan, modality.token) for modality in MODALITIES if modality.argument in plan.target.parameters}
    return {token for token in found if token is not None}


def _token(plan: Plan, names: re.Pattern[str]) -> int | None:
    return next((token for name, token in plan.special.items() if names.search(name)), None)
