"""A reduced config is the same architecture, only small enough to run with real numbers in seconds."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from peft_inspect.load.model.reduce import reduced


def small(model_type: str):
    return reduced(AutoConfig.for_model(model_type))


def test_the_config_that_was_given_stays_as_it_is():
    config = AutoConfig.for_model("llama")
    before = copy.deepcopy(config.to_dict())
    reduced(config)
    assert config.to_dict() == before


def test_the_note_says_what_became_what():
    note = small("llama")[1]
    assert "num_hidden_layers 32→2" in note
    assert "vocab_size 32000→1024" in note


def test_the_size_of_a_head_stays():
    config, _ = small("llama")
    assert config.hidden_size // config.num_attention_heads == 128
    assert config.num_attention_heads % config.num_key_value_heads == 0


def test_every_kind_of_layer_is_kept():
    config, _ = reduced(AutoConfig.for_model("gemma3_text"))
    assert set(config.layer_types) == {"sliding_attention", "full_attention"}
    assert len(config.layer_types) == config.num_hidden_layers <= 4
    jamba, _ = small("jamba")
    assert set(jamba.layers_block_type) == {"mamba", "attention"}


def test_there_are_as_many_experts_as_a_token_chooses():
    config, _ = small("deepseek_v3")
    assert config.num_experts_per_tok <= config.n_routed_experts <= 4
    assert config.first_k_dense_replace < config.num_hidden_layers


def test_placeholder_tokens_move_into_the_smaller_vocabulary_and_stay_apart():
    config, _ = small("qwen2_vl")
    tokens = [config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id]
    assert len(set(tokens)) == 4
    assert max(tokens) < config.text_config.vocab_size


def test_a_small_config_is_left_alone():
    config = AutoConfig.for_model("bert", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=99)
    assert reduced(config)[1] == "reduced: nothing, the config is small already"


@pytest.mark.parametrize("model_type", ["llama", "deepseek_v3", "jamba", "gpt2", "mixtral", "gemma3_text", "qwen3_next"])
def test_a_reduced_language_model_computes(model_type):
    model = AutoModelForCausalLM.from_config(small(model_type)[0])
    assert sum(parameter.numel() for parameter in model.parameters()) < 3e8
    ids = torch.arange(8).unsqueeze(0)
    assert torch.isfinite(model(input_ids=ids, labels=ids).loss)


@pytest.mark.parametrize("model_type", ["vit", "swin", "wav2vec2", "clip", "whisper", "efficientnet", "dinov2"])
def test_a_reduced_model_of_another_modality_builds(model_type):
    model = AutoModel.from_config(small(model_type)[0])
    assert sum(parameter.numel() for parameter in model.parameters()) < 3e8


def test_convolutions_between_attention_follow_its_width():
    audio = small("phi4_multimodal")[0].audio_config
    assert audio.ext_pw_out_channel == audio.nemo_conv_channels == audio.hidden_size


def test_images_keep_two_windows_along_a_side():
    config = small("got_ocr2_vision")[0]
    assert config.image_size == 2 * config.window_size * config.patch_size


def test_an_image_size_that_another_config_derives_from_stays():
    assert small("sam")[0].vision_config.image_size == 1024


@pytest.mark.parametrize("model_type", ["nemotron", "wav2vec2-conformer"])
def test_a_default_with_values_filled_in_is_reduced_too(load, model_type):
    subject = load(f"arch:{model_type}", reduce=True)
    assert subject.model.config.num_hidden_layers == 2
    assert not getattr(subject.model.config, "layerdrop", 0.0)
