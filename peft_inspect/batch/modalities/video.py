"""Frames of a video."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from peft_inspect.batch.fields import VISION, find
from peft_inspect.batch.modalities.image import channels, grids, is_video, positioned, still, strip
from peft_inspect.batch.modalities.modality import Modality
from peft_inspect.batch.plan import Layout, Plan

_SECONDS = ("second_per_grid_ts", "video_second_per_grid")


def _layouts(plan: Plan) -> Iterator[Layout]:
    """Patches on a grid (of one temporal patch: several may need text between them), in a strip or with positions; else frames."""
    if plan.wants("video_grid_thw"):
        seconds = {name: torch.ones(plan.size, device=plan.device) for name in _SECONDS if plan.wants(name)}
        for layout in grids(plan, "pixel_values_videos", "video_grid_thw"):
            yield {**layout, **seconds}
        return
    if plan.wants("target_sizes_videos"):
        yield from strip(plan, "pixel_values_videos", "target_sizes_videos")
    if plan.wants("video_position_ids"):
        frames = {"num_frames_per_video": plan.ones(plan.size)} if plan.wants("num_frames_per_video") else {}
        for layout in positioned(plan, "pixel_values_videos", "video_position_ids"):
            yield {**layout, **frames}
    yield {"pixel_values_videos": _frames(plan)}


def _in_place_of_images(plan: Plan) -> Iterator[Layout]:
    """Videos under the name of images; a still image, where the model takes its frames one by one."""
    if is_video(plan):
        yield {"pixel_values": _frames(plan)}
        yield from still(plan)


def _frames(plan: Plan) -> torch.Tensor:
    """As many frames as the position embeddings are made for, else four: float[batch, frames, channels, height, width]."""
    stated = find(plan.config, "num_frames", "frames_per_clip", "n_frames", within=VISION)
    count = stated if isinstance(stated, int) else 4
    tubelet = find(plan.config, "tubelet_size", within=VISION)
    if isinstance(tubelet, int) and count % tubelet:
        count = tubelet * tubelet
    return plan.floats(plan.size, count, channels(plan), *plan.image_size)


MODALITIES = (
    Modality("video", "videos", "pixel_values_videos", _layouts, methods=("get_video_features",), words="video", short="v"),
    Modality("video", "videos", "pixel_values", _in_place_of_images, methods=("get_video_features",), words="video", short="v"),
)
