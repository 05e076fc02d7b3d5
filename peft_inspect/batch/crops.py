"""Images as a whole and in crops, and sound with the number of features to keep, where no method counts them."""

from __future__ import annotations

from peft_inspect.batch.fields import AUDIO, VISION, find
from peft_inspect.batch.image import channels, patch_size
from peft_inspect.batch.plan import Placeholder, Plan

_FRAMES = 200
_KEPT = 8  # audio features; far fewer than the frames give


def make(plan: Plan) -> None:
    """Give `image_pixel_values` and `audio_input_features` with their companions and placeholders."""
    if plan.wants("image_pixel_values", "image_sizes", "image_attention_mask"):
        _image(plan)
    if plan.wants("audio_input_features", "audio_embed_sizes"):
        _audio(plan)


def _image(plan: Plan) -> None:
    """The whole image and one crop.

    Four patches are one feature; each row of features ends in a separator, and one more stands between the two.
    """
    token = find(plan.config, "image_token_id", within=VISION)
    side = find(plan.config, "crop_size", "image_size", within=VISION)
    patches = side // patch_size(plan)
    row = patches // 2
    plan.give("image_pixel_values", plan.floats(plan.size, 2, channels(plan), side, side))
    plan.give("image_sizes", plan.integers([[side, side]] * plan.size))
    plan.give("image_attention_mask", plan.ones(plan.size, 2, patches, patches))
    plan.placeholders.append(Placeholder("image", token, 2 * row * (row + 1) + 1))


def _audio(plan: Plan) -> None:
    bins = find(plan.config, "input_size", "num_mel_bins", within=AUDIO)
    plan.give("audio_input_features", plan.floats(plan.size, _FRAMES, bins))
    plan.give("audio_embed_sizes", plan.integers([_KEPT] * plan.size))
    plan.placeholders.append(Placeholder("audio", find(plan.config, "audio_token_id", within=AUDIO), _KEPT))
