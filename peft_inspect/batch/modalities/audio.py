"""Sound: waveforms, and spectral features with the mask of the frames that are no padding."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from peft_inspect.batch.fields import AUDIO, find
from peft_inspect.batch.modalities.modality import Modality
from peft_inspect.batch.plan import Layout, Plan

_SAMPLES = 19_200  # a multiple of the usual hop sizes and frame lengths
_FRAMES = 400
_USUAL_BINS = (128, 80, 64)
_CLIP = 1000  # frames of a clip that is looked at as an image
_MASKS = ("input_features_mask", "feature_attention_mask", "audio_attention_mask", "audio_mel_mask")
_BINS = (
    "num_mel_bins",
    "num_chroma",
    "feature_projection_input_dim",
    "input_feat_per_channel",
    "n_mels",
    "mel_bins",
    "num_banks",
    "feature_size",
    "input_dim",
    "feat_in",
)


def _waveforms(plan: Plan) -> Iterator[Layout]:
    """Raw samples: float[batch, samples], or with a channel dimension where the docstring or a codec asks for one."""
    name = "input_values"
    shape = plan.receiver.documented.get(name, ())
    if any("mel" in part for part in shape):
        length = find(plan.config, "max_length") or _FRAMES
        yield {name: plan.floats(plan.size, length, find(plan.config, *_BINS) or 128)}
        return
    if len(shape) == 3:
        yield {name: plan.floats(plan.size, find(plan.config, "audio_channels") or 1, _SAMPLES)}
    yield {name: plan.floats(plan.size, _SAMPLES)}
    yield {name: plan.floats(plan.size, 1, _SAMPLES)}


def _features(plan: Plan) -> Iterator[Layout]:
    """Spectral features, laid out as the first layer that reads them wants them."""
    name = "input_features"
    bins = find(plan.config, *_BINS, within=AUDIO)
    if plan.wants("feature_lens"):  # all clips end to end, and how long each is
        yield {name: plan.floats(bins or _USUAL_BINS[0], _FRAMES * plan.size), "feature_lens": plan.integers([_FRAMES] * plan.size)}
    reader = _reader(plan, bins if isinstance(bins, int) else None)
    if isinstance(reader, torch.nn.Conv1d):
        bins = reader.in_channels
        positions = find(plan.config, "max_source_positions", within=AUDIO)
        lengths = [2 * positions, _FRAMES] if isinstance(positions, int) and reader.stride[0] == 1 else [_FRAMES]
        shapes = [(bins, length) for length in lengths] + [(_FRAMES, bins)]
    else:
        bins = reader.in_features if isinstance(reader, torch.nn.Linear) else bins if isinstance(bins, int) else 80
        shapes = [(_FRAMES, bins), (bins, _FRAMES)]
    for shape in shapes:
        length = shape[0] if shape[1] == bins else shape[1]
        masks = {mask: plan.ones(plan.size, length) for mask in _MASKS if plan.wants(mask)}
        if plan.wants("chunk_sample_lengths"):  # of the waveform that the features are of
            masks["chunk_sample_lengths"] = plan.integers([length * (find(plan.config, "hop_length", within=AUDIO) or 1)] * plan.size)
        yield {name: plan.floats(plan.size, *shape), **masks}
    yield {name: plan.floats(plan.size, *shapes[0]), **dict.fromkeys(filter(plan.wants, _MASKS))}
    yield {name: plan.floats(plan.size, 1, _CLIP, bins)}
    masks = {mask: plan.ones(plan.size, _FRAMES) for mask in _MASKS if plan.wants(mask)}
    for other in _USUAL_BINS:
        yield {name: plan.floats(plan.size, _FRAMES, other), **masks}


def _reader(plan: Plan, bins: int | None) -> torch.nn.Module | None:
    """The first layer whose input is as wide as a frame has bins; else the first of the audio tower."""
    first: torch.nn.Module | None = None
    for path, layer in plan.receiver.module.named_modules():
        width = _input_width(layer)
        if width is None:
            continue
        if width == bins or (isinstance(layer, torch.nn.Conv2d) and width == 1):
            found: torch.nn.Module = layer
            return found
        if first is None and (AUDIO.search(path) or not plan.receiver.composite):
            first = layer
    return first


def _input_width(layer: torch.nn.Module) -> int | None:
    if isinstance(layer, (torch.nn.Conv1d, torch.nn.Conv2d)):
        return layer.in_channels
    return layer.in_features if isinstance(layer, torch.nn.Linear) else None


_METHODS = ("get_audio_features", "get_speech_features")
MODALITIES = (
    Modality("audio", "sound", "input_features", _features, methods=_METHODS, words="audio|sound|speech", short="a"),
    Modality("audio", "sound", "input_values", _waveforms, methods=_METHODS, words="audio|sound|speech", short="a"),
)
