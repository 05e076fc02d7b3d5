"""Pixels of still images. A layout is one way to hand them over: pixel values with the inputs that go with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from peft_inspect.batch.fields import VISION, find, pair

if TYPE_CHECKING:
    from peft_inspect.batch.plan import Plan

Layout = dict[str, Any]


def image_size(plan: Plan, part: str = "") -> tuple[int, int]:
    """Height and width that the position embeddings are made for; 224 where any size will do.

    `part` names the vision tower that is meant, where there are several.
    """
    return _stated_size(plan, part) or (224, 224)


def _stated_size(plan: Plan, part: str = "") -> tuple[int, int] | None:
    within = re.compile(part) if part else VISION
    ratios = find(plan.config, "scaled_images_ratios")
    if ratios:
        side = round(find(plan.config, "patch_size") / min(ratios))
        return side, side
    for name in ("image_size", "img_size", "input_size", "crop_size", "pretrain_image_size", "max_img_size"):
        value = find(plan.config, name, within=within)
        try:
            return pair(value)
        except (ValueError, KeyError):
            continue
    return None


def channels(plan: Plan) -> int:
    """Number of colour channels."""
    value = find(plan.config, "num_channels", "in_channels", "in_chans", "num_image_channels", within=VISION)
    return value if isinstance(value, int) else 3


def patch_size(plan: Plan) -> int:
    """Side of a square patch."""
    value = find(plan.config, "patch_size", "encoder_patch_size", within=VISION)
    return pair(value)[0] if value is not None else 16


def layouts(plan: Plan) -> Iterator[Layout]:
    """Ways to give images, the one with the most evidence first."""
    if plan.wants("image_grid_thw"):
        yield from _grids(plan, "pixel_values", "image_grid_thw", frames=1)
    if plan.wants("grid_thw"):
        main = "hidden_states" if plan.wants("hidden_states") else "pixel_values"
        yield from _grids(plan, main, "grid_thw", frames=1)
    if plan.wants("image_grid_hw"):
        yield from _grids(plan, "pixel_values", "image_grid_hw", frames=1)
    for positions in ("image_position_ids", "pixel_position_ids"):
        if plan.wants(positions):
            yield positioned(plan, "pixel_values", positions)
    if plan.wants("spatial_shapes"):
        yield _shaped_patches(plan)
    if plan.wants("aspect_ratio_ids"):
        yield _aspect_ratios(plan)
    if plan.wants("target_sizes"):
        yield strip(plan, "pixel_values", "target_sizes")
    if plan.wants("image_sizes"):
        yield from _sized(plan)
    if plan.wants("pixel_attention_mask"):
        yield from _several_images(plan)
    if plan.wants("image_attention_mask") and len(plan.target.documented.get("image_attention_mask", ())) != 2:
        height, width = image_size(plan)
        yield {"pixel_values": plan.floats(plan.size, 1, channels(plan), height, width)}
    yield from _whole(plan)
    yield {"pixel_values": plan.floats(plan.size, 4, patch_values(plan))}
    temporal = find(plan.config, "temporal_patch_size", within=VISION)
    if isinstance(temporal, int):  # unflattened patches of several frames, colours last
        yield {"pixel_values": plan.floats(4 * plan.size, temporal, patch_size(plan), patch_size(plan), channels(plan))}


def _whole(plan: Plan) -> Iterator[Layout]:
    """Whole images; smaller ones too, whose patches divide evenly where several become one feature."""
    height, width = image_size(plan)
    others = {
        name: plan.floats(plan.size, channels(plan), *image_size(plan, part=name.replace("pixel_values", "").strip("_")))
        for name in plan.target.parameters
        if name.endswith("_pixel_values") and "codebook" not in name and "prompt" not in name and plan.wants(name)
    }
    for rows, columns in _sizes(plan):
        yield {"pixel_values": plan.floats(plan.size, channels(plan), rows, columns), **others}
    yield {"pixel_values": plan.floats(plan.size, 1, channels(plan), height, width), **others}
    pair_size = _stated_size(plan) or (64, 64)  # what matches the points of two images compares every one with every other
    yield {"pixel_values": plan.floats(plan.size, 2, channels(plan), *pair_size), **others}


def patch_values(plan: Plan) -> int:
    """Values in one flattened patch, as the layer that embeds patches reads them: of one frame, or of a tubelet."""
    flat = channels(plan) * patch_size(plan) ** 2
    for path, layer in plan.target.module.named_modules():
        if "patch" not in path and not VISION.search(path) and plan.target.composite:
            continue
        if isinstance(layer, torch.nn.Conv3d):
            return flat * layer.kernel_size[0]
        if isinstance(layer, torch.nn.Conv2d):
            return flat
        if isinstance(layer, torch.nn.Linear) and layer.in_features in (flat, 2 * flat, 4 * flat):
            return layer.in_features
    temporal = find(plan.config, "temporal_patch_size", within=VISION)
    return flat * temporal if isinstance(temporal, int) else flat


def merge_size(plan: Plan) -> int:
    """Patches along one side that become one feature."""
    value = find(plan.config, "spatial_merge_size", "merge_kernel_size", "merge_size", "downsample_factor", within=VISION)
    return pair(value)[0] if value is not None else 2


def _grids(plan: Plan, pixels: str, grid: str, frames: int) -> Iterator[Layout]:
    """Patches of all images in one row, and the grid of each: frames, rows, columns."""
    for factor in (2, 4, 8):
        side = factor * merge_size(plan)
        shape = [frames, side, side] if grid.endswith("thw") else [side, side]
        count = plan.size * frames * side * side
        layout: Layout = {grid: plan.integers([shape] * plan.size)}
        if plan.wants("images_per_sample"):  # the last grid of a sample is of the image that is to be made
            layout = {grid: plan.integers([shape, shape] * plan.size), "images_per_sample": plan.integers([2] * plan.size)}
        for name in ("image_merge_sizes", "merge_sizes", "video_merge_sizes"):
            if plan.wants(name) and name.startswith("video") == grid.startswith("video"):
                layout[name] = plan.integers([merge_size(plan)] * plan.size)
        yield {pixels: plan.floats(count, patch_values(plan)), **layout}
        square = (channels(plan), patch_size(plan), patch_size(plan))
        yield {pixels: plan.floats(count, *square), **layout}
        yield {pixels: plan.floats(1, count, *square), **layout}
        yield {pixels: plan.floats(plan.size, count // plan.size, patch_values(plan)), **layout}
        merged = merge_size(plan) * patch_size(plan)
        yield {pixels: plan.floats(count, merged, merged, channels(plan)), **layout}


def video_grids(plan: Plan) -> Iterator[Layout]:
    """Patches of a video of one temporal patch (several may need text between them), and its grid."""
    seconds = {
        name: torch.ones(plan.size, device=plan.device) for name in ("second_per_grid_ts", "video_second_per_grid") if plan.wants(name)
    }
    for layout in _grids(plan, "pixel_values_videos", "video_grid_thw", frames=1):
        yield {**layout, **seconds}


def flattened(plan: Plan) -> Iterator[Layout]:
    """Patches that each begin with their row and column."""
    side = 4
    patches = plan.floats(plan.size, side * side, 2 + channels(plan) * patch_size(plan) ** 2)
    rows = torch.arange(side * side, device=plan.device)
    patches[..., 0], patches[..., 1] = (rows // side + 1).to(plan.dtype), (rows % side + 1).to(plan.dtype)
    yield {"flattened_patches": patches}


def positioned(plan: Plan, pixels: str, positions: str) -> Layout:
    """Flattened patches, each with its column and row."""
    side = 2 * (find(plan.config, "pooling_kernel_size", within=VISION) or merge_size(plan))
    grid = [[column, row] for row in range(side) for column in range(side)]
    layout = {pixels: plan.floats(plan.size, side * side, patch_values(plan)), positions: plan.integers([grid] * plan.size)}
    if "video" in pixels and plan.wants("num_frames_per_video"):
        layout["num_frames_per_video"] = plan.ones(plan.size)
    return layout


def strip(plan: Plan, pixels: str, sizes: str) -> Layout:
    """Patches side by side in one long strip, with the rows and columns of each image."""
    side = 4 * merge_size(plan)
    patch = patch_size(plan)
    return {
        pixels: plan.floats(1, channels(plan), patch, plan.size * side * side * patch),
        sizes: plan.integers([[side, side]] * plan.size),
    }


def _shaped_patches(plan: Plan) -> Layout:
    """Flattened patches with a mask and the rows and columns of each image."""
    side = 4 * merge_size(plan)
    return {
        "pixel_values": plan.floats(plan.size, side * side, patch_values(plan)),
        "pixel_attention_mask": plan.ones(plan.size, side * side),
        "spatial_shapes": plan.integers([[side, side]] * plan.size),
    }


def _aspect_ratios(plan: Plan) -> Layout:
    """Tiles per image and image per sample, with the number of the aspect ratio."""
    height, width = image_size(plan)
    tiles = find(plan.config, "max_num_tiles", within=VISION) or 4
    mask = plan.zeros(plan.size, 1, tiles)
    mask[..., 0] = 1
    return {
        "pixel_values": plan.floats(plan.size, 1, tiles, channels(plan), height, width),
        "aspect_ratio_ids": plan.ones(plan.size, 1),
        "aspect_ratio_mask": mask,
    }


def _sized(plan: Plan) -> Iterator[Layout]:
    """Images with their original size: tiles of a chosen resolution, or images of any size."""
    height, width = image_size(plan)
    pinpoints = find(plan.config, "image_grid_pinpoints")
    if pinpoints:
        rows, columns = min(pinpoints, key=lambda size: size[0] * size[1])
        tiles = 1 + (rows // height) * (columns // width)
        sizes = plan.integers([[rows, columns]] * plan.size)
        yield {"pixel_values": plan.floats(plan.size, tiles, channels(plan), height, width), "image_sizes": sizes}
        return
    side = 4 * merge_size(plan) * patch_size(plan)
    yield {"pixel_values": plan.floats(plan.size, channels(plan), side, side), "image_sizes": plan.integers([[side, side]] * plan.size)}
    yield {
        "pixel_values": plan.floats(plan.size, channels(plan), height, width),
        "image_sizes": plan.integers([[height, width]] * plan.size),
    }


def _several_images(plan: Plan) -> Iterator[Layout]:
    """A list of images per sample, with a mask of the pixels that are no padding."""
    for height, width in _sizes(plan):
        yield {
            "pixel_values": plan.floats(plan.size, 1, channels(plan), height, width),
            "pixel_attention_mask": plan.ones(plan.size, 1, height, width),
        }
        yield {
            "pixel_values": plan.floats(plan.size, 1, channels(plan), height, width),
            "pixel_attention_mask": plan.ones(plan.size, 1).bool(),
        }


def _sizes(plan: Plan) -> Iterator[tuple[int, int]]:
    """The size of the position embeddings, then a smaller one whose patches divide evenly where several become one feature."""
    height, width = image_size(plan)
    yield height, width
    shuffle = find(plan.config, "scale_factor", "pixel_shuffle_factor")
    unit = patch_size(plan) * (shuffle if isinstance(shuffle, int) else 2 * merge_size(plan))
    if height > unit:
        yield height // unit * unit, height // unit * unit
