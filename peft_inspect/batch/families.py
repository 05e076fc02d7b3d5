"""Families whose inputs neither signature nor config nor documentation lay out: a row each.

Each is tried on all of its types: something must run with it alone (tests/batch/test_families.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from peft_inspect.batch.documented import give_documented
from peft_inspect.batch.fields import AUDIO, VISION, find
from peft_inspect.batch.modalities.image import channels, grids, patch_size
from peft_inspect.batch.plan import TEXT_LENGTH, Placeholder, Plan

_MAP = 16  # side of a small map of features
_FRAMES = 200
_KEPT = 8  # features of sound; far fewer than the frames give


@dataclass(frozen=True)
class Family:
    """What models of these types read, given before anything else is made, where the forward takes `argument`."""

    types: tuple[str, ...]  # model types, as configs spell them
    argument: str
    why: str  # what none of signature, config and documentation says
    give: Callable[[Plan], None]


def _latent_queries(plan: Plan) -> None:
    plan.positions = find(plan.config, "latent_query_num")
    plan.text_length = plan.positions + TEXT_LENGTH


def _whole_and_crop(plan: Plan) -> None:
    """The whole image and one crop, four patches a feature; a separator after each row, and one between the two."""
    side = find(plan.config, "crop_size", "image_size", within=VISION)
    patches = side // patch_size(plan)
    row = patches // 2
    plan.modalities["image_pixel_values"] = "image"
    plan.give("image_pixel_values", plan.floats(plan.size, 2, channels(plan), side, side))
    plan.give("image_sizes", plan.integers([[side, side]] * plan.size))
    plan.give("image_attention_mask", plan.ones(plan.size, 2, patches, patches))
    plan.placeholders.append(Placeholder("image", find(plan.config, "image_token_id", within=VISION), 2 * row * (row + 1) + 1))


def _features_kept(plan: Plan) -> None:
    bins = find(plan.config, "input_size", "num_mel_bins", within=AUDIO)
    plan.modalities["audio_input_features"] = "audio"
    plan.give("audio_input_features", plan.floats(plan.size, _FRAMES, bins))
    plan.give("audio_embed_sizes", plan.integers([_KEPT] * plan.size))
    plan.placeholders.append(Placeholder("audio", find(plan.config, "audio_token_id", within=AUDIO), _KEPT))


def _codes_of_patches(plan: Plan) -> None:
    plan.modalities["pixel_values"] = "image"
    plan.inputs |= next(grids(plan, "pixel_values", "image_grid_thw"))
    start, end = plan.special.get("image_start_token_id"), plan.special.get("image_end_token_id")
    patches = plan.inputs["pixel_values"].shape[0] // plan.size
    plan.placeholders.append(Placeholder("image", plan.special["image_token_id"], patches, start, end))


def _positions_of_sound(plan: Plan) -> None:
    positions, bins = (find(plan.config, name, within=AUDIO) for name in ("max_source_positions", "num_mel_bins"))
    plan.modalities["input_features"] = "audio"
    plan.give("input_features", plan.floats(plan.size, bins, 2 * positions))
    plan.give("input_features_mask", plan.ones(plan.size, 2 * positions))
    plan.placeholders.append(Placeholder("audio", plan.special["audio_token_id"], positions // 2))


def _every_label(plan: Plan) -> None:
    for name in plan.receiver.documented:
        if name.endswith("_labels"):
            give_documented(plan, name)


def _halves(plan: Plan) -> None:
    height, width = plan.image_size
    for name in ("pixel_values", "prompt_pixel_values", "prompt_masks"):
        plan.give(name, plan.floats(plan.size, channels(plan), height // 2, width))


def _streams_of_codes(plan: Plan) -> None:
    books = find(plan.config, "num_codebooks") + 1  # and the text
    plan.give("input_ids", plan.ones(plan.size, TEXT_LENGTH, books))
    plan.give("attention_mask", plan.ones(plan.size, TEXT_LENGTH))
    plan.give("labels", plan.ones(plan.size, TEXT_LENGTH))


def _frames_one_by_one(plan: Plan) -> None:
    frames = find(plan.config, "num_frames") or 8
    plan.give("pixel_values", plan.floats(plan.size * frames, channels(plan), *plan.image_size))


def _sound_of_features(plan: Plan) -> None:
    plan.give("input_values", plan.floats(plan.size, 1, 2 * _FRAMES * find(plan.config, "hop_length")))


def _state_of_every_point(plan: Plan) -> None:
    plan.give("encoder_hidden_states", plan.floats(plan.size, _MAP * _MAP, find(plan.config, "hidden_size")))


def _chain_of_strides(plan: Plan) -> None:
    ratios = find(plan.config, "downsampling_ratios", "upsampling_ratios")
    plan.give("hidden_states", plan.floats(plan.size, 1, TEXT_LENGTH * math.prod(ratios)))


def _one_sample(plan: Plan) -> None:
    plan.size = 1


def _camera_mask(plan: Plan) -> None:
    plan.give("pixel_attention_mask", plan.ones(plan.size, 1).bool())


def _mask_of_truth_values(plan: Plan) -> None:
    plan.give("attention_mask", plan.ones(plan.size, TEXT_LENGTH).bool())


def _no_cache(plan: Plan) -> None:
    plan.give("use_cache", False)


FAMILIES = (
    Family(("phi4_multimodal",), "image_pixel_values", "images come as a whole and in crops", _whole_and_crop),
    Family(("phi4_multimodal",), "audio_input_features", "sound comes with the number of features to keep", _features_kept),
    Family(("kosmos-2", "kosmos-2.5"), "image_embeds_position_mask", "a mask, not a token, says where features go", _latent_queries),
    Family(("glm_image",), "pixel_values", "placeholders take codes of patches, not the features of get_image_features", _codes_of_patches),
    Family(("musicflamingo",), "input_features", "features are timed by their placeholders, so no method counts them", _positions_of_sound),
    Family(
        ("fastspeech2_conformer", "fastspeech2_conformer_with_hifigan"), "pitch_labels", "it trains on all its labels only", _every_label
    ),
    Family(("seggpt",), "prompt_pixel_values", "the prompt and the image become one image of the configured size", _halves),
    Family(("kyutai_speech_to_text",), "input_ids", "ids are the text and every stream of codes side by side", _streams_of_codes),
    Family(("xclip_vision_model",), "pixel_values", "the frames of a video are its samples", _frames_one_by_one),
    Family(("xcodec2",), "input_values", "the waveform must be as long as the features that go with it", _sound_of_features),
    Family(("sam3_mask_decoder", "sam3_lite_text_mask_decoder"), "encoder_hidden_states", "one for every point", _state_of_every_point),
    Family(("vibevoice_acoustic_tokenizer_encoder",), "hidden_states", "strides shorten the sound below its kernels", _chain_of_strides),
    Family(("tvp",), "pixel_values", "its prompts are laid out for one sample", _one_sample),
    Family(("pi0",), "pixel_attention_mask", "images are a list per sample, with a mask of those that are no padding", _camera_mask),
    Family(("blt_local_decoder",), "attention_mask", "the mask reaches the attention as it is", _mask_of_truth_values),
    Family(("blt",), "use_cache", "no cache can be sized from its configuration", _no_cache),
)


def give(plan: Plan) -> None:
    """Give what the rows of the model's type say."""
    for family in FAMILIES:
        if getattr(plan.config, "model_type", None) in family.types and plan.wants(family.argument):
            family.give(plan)
