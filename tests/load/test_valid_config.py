"""Defaults that contradict themselves are corrected; those that do not are left alone."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from peft_inspect.load.model.valid_config import make_valid


@pytest.mark.parametrize("model_type", ["llama", "bert", "whisper", "gpt2", "deepseek_v3", "mixtral", "qwen2_audio"])
def test_a_valid_default_is_left_alone(model_type):
    config = AutoConfig.for_model(model_type)
    before = str(config)
    assert make_valid(config) == ()
    assert str(config) == before


def test_features_become_as_wide_as_the_text():
    config = AutoConfig.for_model("qwen2_vl")
    notes = make_valid(config)
    assert config.vision_config.hidden_size == config.text_config.hidden_size
    assert any("vision_config.hidden_size" in note for note in notes)


def test_missing_placeholders_are_set_apart_inside_the_vocabulary():
    config = AutoConfig.for_model("blip-2")
    make_valid(config)
    assert 0 <= config.image_token_id < config.text_config.vocab_size


def test_an_image_has_the_patches_that_are_pooled():
    config = AutoConfig.for_model("gemma3")
    make_valid(config)
    assert (config.vision_config.image_size // config.vision_config.patch_size) ** 2 >= config.mm_tokens_per_image


def test_rotary_sections_share_half_a_head():
    config = AutoConfig.for_model("glm4v")
    make_valid(config)
    text = config.text_config
    assert 2 * sum(text.rope_parameters["mrope_section"]) == text.hidden_size // text.num_attention_heads


def test_parts_that_are_models_of_their_own_get_their_placeholders_too():
    config = AutoConfig.for_model("qwen2_5_omni")
    make_valid(config)
    assert 0 <= config.thinker_config.vision_start_token_id < config.thinker_config.text_config.vocab_size


def test_shuffled_patches_fit_what_reads_them():
    config = AutoConfig.for_model("llama4")
    make_valid(config)
    vision = config.vision_config
    assert vision.intermediate_size == vision.hidden_size / vision.pixel_shuffle_ratio**2
    assert vision.vision_output_dim == vision.projector_output_dim


@pytest.mark.parametrize(
    ("model_type", "field", "value"),
    [("esm", "pad_token_id", 1), ("step3p5", "sliding_window", 4096), ("pp_doclayout_v2", "class_order", [0, 1])],
)
def test_what_every_forward_reads_is_filled_in_and_named(model_type, field, value):
    config = AutoConfig.for_model(model_type)
    notes = make_valid(config)
    assert getattr(config, field) == value
    assert f"the default configuration leaves {field} open: {value} is used" in notes


def test_a_rotary_embedding_of_several_axes_gets_a_section_for_each():
    config = AutoConfig.for_model("hunyuan_vl")
    make_valid(config)
    assert config.text_config.rope_parameters["mrope_section"] == [22, 21, 21]


def test_patches_that_an_encoder_within_pools_are_enough():
    config = AutoConfig.for_model("t5gemma2")
    make_valid(config)
    encoder = config.encoder
    assert (encoder.vision_config.image_size // encoder.vision_config.patch_size) ** 2 >= encoder.mm_tokens_per_image


def test_a_vision_encoder_hands_on_what_the_next_one_reads():
    config = AutoConfig.for_model("deepseek_ocr2")
    make_valid(config)
    vision = config.vision_config
    assert vision.sam_config.downsample_channels == [512, vision.encoder_config.hidden_size]


def test_features_that_a_projector_narrows_first_keep_their_width():
    config = AutoConfig.for_model("muse_glimmer")
    width = config.out_hidden_size
    make_valid(config)
    assert config.out_hidden_size == width
