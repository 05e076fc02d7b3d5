"""Pixels of still images: whole, in patches or in tiles, with the grids, positions, sizes and masks that go with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import torch

from peft_inspect.batch.fields import VISION, find, image_size, side
from peft_inspect.batch.modalities.modality import Modality
from peft_inspect.batch.plan import Layout, Plan

_MERGE_SIZES = ("image_merge_sizes", "merge_sizes", "video_merge_sizes")
_OF_ITS_OWN = re.compile(r"^(?!.*(codebook|prompt)).*_pixel_values$")  # images of a tower of its own


def channels(plan: Plan) -> int:
    """Number of colour channels."""
    value = find(plan.config, "num_channels", "in_channels", "in_chans", "num_image_channels", within=VISION)
    return value if isinstance(value, int) else 3


def patch_size(plan: Plan) -> int:
    """Side of a square patch."""
    return side(find(plan.config, "patch_size", "encoder_patch_size", within=VISION), 16)


def merge_size(plan: Plan) -> int:
    """Patches along one side that become one feature."""
    return side(find(plan.config, "spatial_merge_size", "merge_kernel_size", "merge_size", "downsample_factor", within=VISION), 2)


def patch_values(plan: Plan) -> int:
    """Values in one flattened patch, as the layer that embeds patches reads them: of one frame, or of a tubelet."""
    flat = channels(plan) * patch_size(plan) ** 2
    for path, layer in plan.receiver.module.named_modules():
        if "patch" not in path and not VISION.search(path) and plan.receiver.composite:
            continue
        if isinstance(layer, torch.nn.Conv3d):
            return flat * layer.kernel_size[0]
        if isinstance(layer, torch.nn.Conv2d):
            return flat
        if isinstance(layer, torch.nn.Linear) and layer.in_features in (flat, 2 * flat, 4 * flat):
            return layer.in_features
    temporal = find(plan.config, "temporal_patch_size", within=VISION)
    return flat * temporal if isinstance(temporal, int) else flat


def is_video(plan: Plan) -> bool:
    """Whether `pixel_values` themselves are videos: the encoder cuts them into tubelets or attends over frames."""
    if IMAGE.token(plan) is not None:
        return False
    if "num_frames" in ",".join(plan.receiver.documented.get("pixel_values", ())):
        return True
    named = "Video" in type(plan.receiver.module).__name__ and "pixel_values_videos" not in plan.receiver.parameters
    return named or find(plan.config, "tubelet_size", "num_frames") is not None


def still(plan: Plan) -> Iterator[Layout]:
    """Ways to give images: those whose companions the forward takes, then whole images, then patches."""
    for companion, layouts in _COMPANIONS.items():
        if plan.wants(companion):
            yield from layouts(plan)
    yield from _whole(plan)
    rows = plan.image_size[0] // patch_size(plan)  # a patch for every position
    yield {"pixel_values": plan.floats(plan.size, rows * rows, patch_values(plan))}
    temporal = find(plan.config, "temporal_patch_size", within=VISION)
    if isinstance(temporal, int):  # unflattened patches of several frames, colours last
        yield {"pixel_values": plan.floats(4 * plan.size, temporal, patch_size(plan), patch_size(plan), channels(plan))}


def grids(plan: Plan, pixels: str, grid: str) -> Iterator[Layout]:
    """Patches of all images in one row, and the grid of each: one frame, rows, columns."""
    for factor in (2, 4, 8):
        rows = factor * merge_size(plan)
        shape = [1, rows, rows] if grid.endswith("thw") else [rows, rows]
        count = plan.size * rows * rows
        layout: Layout = {grid: plan.integers([shape] * plan.size)}
        if plan.wants("images_per_sample"):  # the last grid of a sample is of the image that is to be made
            layout = {grid: plan.integers([shape, shape] * plan.size), "images_per_sample": plan.integers([2] * plan.size)}
        for name in _MERGE_SIZES:
            if plan.wants(name) and name.startswith("video") == grid.startswith("video"):
                layout[name] = plan.integers([merge_size(plan)] * plan.size)
        square = (channels(plan), patch_size(plan), patch_size(plan))
        merged = merge_size(plan) * patch_size(plan)
        flat = patch_values(plan)
        for values in ((count, flat), (count, *square), (1, count, *square), (plan.size, rows * rows, flat)):
            yield {pixels: plan.floats(*values), **layout}
        yield {pixels: plan.floats(count, merged, merged, channels(plan)), **layout}


def positioned(plan: Plan, pixels: str, positions: str) -> Iterator[Layout]:
    """Flattened patches, each with its column and row."""
    rows = 2 * (find(plan.config, "pooling_kernel_size", within=VISION) or merge_size(plan))
    grid = [[column, row] for row in range(rows) for column in range(rows)]
    yield {pixels: plan.floats(plan.size, rows * rows, patch_values(plan)), positions: plan.integers([grid] * plan.size)}


def strip(plan: Plan, pixels: str, sizes: str) -> Iterator[Layout]:
    """Patches side by side in one long strip, with the rows and columns of each image."""
    rows = 4 * merge_size(plan)
    patch = patch_size(plan)
    pixel_strip = plan.floats(1, channels(plan), patch, plan.size * rows * rows * patch)
    yield {pixels: pixel_strip, sizes: plan.integers([[rows, rows]] * plan.size)}


def _whole(plan: Plan) -> Iterator[Layout]:
    """Whole images; smaller ones too, whose patches divide evenly where several become one feature."""
    others = {}
    for name in filter(plan.wants, filter(_OF_ITS_OWN.match, plan.receiver.parameters)):
        size = image_size(plan.config, part=name.replace("pixel_values", "").strip("_")) or (224, 224)
        others[name] = plan.floats(plan.size, channels(plan), *size)
    for rows, columns in _sizes(plan):
        yield {"pixel_values": plan.floats(plan.size, channels(plan), rows, columns), **others}
    yield {"pixel_values": plan.floats(plan.size, 1, channels(plan), *plan.image_size), **others}
    two = image_size(plan.config) or (64, 64)  # what matches the points of two images compares every one with every other
    yield {"pixel_values": plan.floats(plan.size, 2, channels(plan), *two), **others}


def _sizes(plan: Plan) -> Iterator[tuple[int, int]]:
    """The size of the position embeddings, then a smaller one whose patches divide evenly where several become one feature."""
    yield plan.image_size
    height, _ = plan.image_size
    shuffle = find(plan.config, "scale_factor", "pixel_shuffle_factor")
    unit = patch_size(plan) * (shuffle if isinstance(shuffle, int) else 2 * merge_size(plan))
    if height > unit:
        yield height // unit * unit, height // unit * unit


def _shaped_patches(plan: Plan) -> Iterator[Layout]:
    """Flattened patches with a mask and the rows and columns of each image."""
    rows = 4 * merge_size(plan)
    yield {
        "pixel_values": plan.floats(plan.size, rows * rows, patch_values(plan)),
        "pixel_attention_mask": plan.ones(plan.size, rows * rows),
        "spatial_shapes": plan.integers([[rows, rows]] * plan.size),
    }


def _aspect_ratios(plan: Plan) -> Iterator[Layout]:
    """Tiles per image and image per sample, with the number of the aspect ratio."""
    tiles = find(plan.config, "max_num_tiles", within=VISION) or 4
    yield {
        "pixel_values": plan.floats(plan.size, 1, tiles, channels(plan), *plan.image_size),
        "aspect_ratio_ids": plan.ones(plan.size, 1),
        "aspect_ratio_mask": torch.nn.functional.one_hot(plan.zeros(plan.size, 1), tiles),
    }


def _sized(plan: Plan) -> Iterator[Layout]:
    """Images with their original size: tiles of a chosen resolution, or images of any size."""
    height, width = plan.image_size
    pinpoints = find(plan.config, "image_grid_pinpoints")
    if pinpoints:
        rows, columns = min(pinpoints, key=lambda size: size[0] * size[1])
        tiles = 1 + (rows // height) * (columns // width)
        sizes = plan.integers([[rows, columns]] * plan.size)
        yield {"pixel_values": plan.floats(plan.size, tiles, channels(plan), height, width), "image_sizes": sizes}
        return
    small = 4 * merge_size(plan) * patch_size(plan)
    for rows, columns in ((small, small), (height, width)):
        sizes = plan.integers([[rows, columns]] * plan.size)
        yield {"pixel_values": plan.floats(plan.size, channels(plan), rows, columns), "image_sizes": sizes}


def _several_images(plan: Plan) -> Iterator[Layout]:
    """A list of images per sample, with a mask of the pixels, or of the images, that are no padding."""
    for height, width in _sizes(plan):
        for mask in (plan.ones(plan.size, 1, height, width), plan.ones(plan.size, 1).bool()):
            yield {"pixel_values": plan.floats(plan.size, 1, channels(plan), height, width), "pixel_attention_mask": mask}


def _attended(plan: Plan) -> Iterator[Layout]:
    """A list of images per sample, which a mask over the text refers to."""
    if len(plan.receiver.documented.get("image_attention_mask", ())) != 2:
        yield {"pixel_values": plan.floats(plan.size, 1, channels(plan), *plan.image_size)}


_COMPANIONS: dict[str, Callable[[Plan], Iterator[Layout]]] = {
    "image_grid_thw": lambda plan: grids(plan, "pixel_values", "image_grid_thw"),
    "grid_thw": lambda plan: grids(plan, "pixel_values", "grid_thw"),
    "image_grid_hw": lambda plan: grids(plan, "pixel_values", "image_grid_hw"),
    "image_position_ids": lambda plan: positioned(plan, "pixel_values", "image_position_ids"),
    "pixel_position_ids": lambda plan: positioned(plan, "pixel_values", "pixel_position_ids"),
    "spatial_shapes": _shaped_patches,
    "aspect_ratio_ids": _aspect_ratios,
    "target_sizes": lambda plan: strip(plan, "pixel_values", "target_sizes"),
    "image_sizes": _sized,
    "pixel_attention_mask": _several_images,
    "image_attention_mask": _attended,
}


def _standalone(plan: Plan) -> Iterator[Layout]:
    """Patches of a vision tower that stands alone."""
    if plan.wants("grid_thw"):
        yield from grids(plan, "hidden_states", "grid_thw")


def _flattened(plan: Plan) -> Iterator[Layout]:
    """Patches that each begin with their row and column."""
    rows = 4
    patches = plan.floats(plan.size, rows * rows, 2 + channels(plan) * patch_size(plan) ** 2)
    places = torch.arange(rows * rows, device=plan.device)
    patches[..., 0], patches[..., 1] = (places // rows + 1).to(plan.dtype), (places % rows + 1).to(plan.dtype)
    yield {"flattened_patches": patches}


IMAGE = Modality(
    "image",
    "images",
    "pixel_values",
    lambda plan: () if is_video(plan) else still(plan),
    methods=("get_image_features", "get_image_tokens"),
    words="image|img|media|vision",
    short="i",
)
MODALITIES = (
    IMAGE,
    Modality("image", "images", "hidden_states", _standalone, words="image", short="i"),
    Modality("image", "images", "flattened_patches", _flattened, words="image|img", short="i"),
)
