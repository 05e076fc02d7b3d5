"""Sound: waveforms, and spectral features with the mask of the frames that are no padding."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from peft_inspect.observe.batch.fields import AUDIO, find
from peft_inspect.observe.batch.image import Layout
from peft_inspect.observe.batch.plan import Plan

_SAMPLES = 16_000
_FRAMES = 256
_MASKS = ("input_features_mask", "feature_attention_mask", "audio_attention_mask", "audio_mel_mask")
_BINS = (
    "num_mel_bins",
    "feature_projection_input_dim",
    "input_feat_per_channel",
    "n_mels",
    "mel_bins",
    "num_banks",
    "feature_size",
    "input_dim",
    "feat_in",
)


def waveforms(plan: Plan, name: str = "input_values") -> Iterator[Layout]:
    """Raw samples: float[batch, samples], or with a channel dimension where the docstring or a codec asks for one."""
    shape = plan.target.documented.get(name, ())
    if any("mel" in part for part in shape):
        length = find(plan.config, "max_length") or _FRAMES
        yield {name: plan.floats(plan.size, length, find(plan.config, *_BINS) or 128)}
        return
    if len(shape) == 3:
        yield {name: plan.floats(plan.size, find(plan.config, "audio_channels") or 1, _SAMPLES)}
    yield {name: plan.floats(plan.size, _SAMPLES)}


def features(plan: Plan, name: str = "input_features") -> Iterator[Layout]:
    """Spectral features, laid out as the first layer that reads that many bins wants them."""
    bins = find(plan.config, *_BINS, within=AUDIO)
    bins = bins if isinstance(bins, int) else 80
    first = _reader(plan.target.module, bins)
    if isinstance(first, torch.nn.Conv1d):
        positions = find(plan.config, "max_source_positions", within=AUDIO)
        lengths = [2 * positions, _FRAMES] if isinstance(positions, int) else [_FRAMES]
        shapes = [(bins, length) for length in lengths]
    else:
        shapes = [(_FRAMES, bins), (bins, _FRAMES)]
    for shape in shapes:
        length = max(shape) if isinstance(first, torch.nn.Conv1d) else _FRAMES
        masks = {mask: plan.ones(plan.size, length) for mask in _MASKS if plan.wants(mask)}
        yield {name: plan.floats(plan.size, *shape), **masks}


def _reader(module: torch.nn.Module, bins: int) -> torch.nn.Module | None:
    """The first layer whose input is as wide as a frame has bins."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv1d) and layer.in_channels == bins:
            return layer
        if isinstance(layer, torch.nn.Linear) and layer.in_features == bins:
            return layer
        if isinstance(layer, torch.nn.Conv2d) and layer.in_channels == 1:
            return layer
    return None
