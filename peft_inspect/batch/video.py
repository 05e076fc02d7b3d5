"""Frames of a video."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from peft_inspect.batch.fields import VISION, find, pair
from peft_inspect.batch.image import Layout, channels, image_size, positioned, strip, video_grids

if TYPE_CHECKING:
    from peft_inspect.batch.plan import Plan


def frames(plan: Plan) -> int:
    """Number of frames the position embeddings are made for, else four."""
    value = find(plan.config, "num_frames", "frames_per_clip", "n_frames", within=VISION)
    return value if isinstance(value, int) else 4


def is_video_model(plan: Plan) -> bool:
    """Whether `pixel_values` themselves are videos: the encoder cuts them into tubelets or attends over frames."""
    if "num_frames" in ",".join(plan.target.documented.get("pixel_values", ())):
        return True
    name = type(plan.target.module).__name__
    return ("Video" in name and "pixel_values_videos" not in plan.target.parameters) or find(
        plan.config, "tubelet_size", "num_frames"
    ) is not None


def layouts(plan: Plan, name: str = "pixel_values_videos") -> Iterator[Layout]:
    """Ways to give one video per sample, the one with the most evidence first."""
    if plan.wants("video_grid_thw"):
        yield from video_grids(plan)
        return
    if plan.wants("target_sizes_videos"):
        yield strip(plan, "pixel_values_videos", "target_sizes_videos")
    if plan.wants("video_position_ids"):
        yield positioned(plan, "pixel_values_videos", "video_position_ids")
    height, width = image_size(plan)
    tubelet = find(plan.config, "tubelet_size", within=VISION)
    count = frames(plan)
    if isinstance(tubelet, int) and count % tubelet:
        count = tubelet * pair(tubelet)[0]
    yield {name: plan.floats(plan.size, count, channels(plan), height, width)}
