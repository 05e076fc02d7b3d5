"""--config-set: values by dotted key, and what follows from them."""

from __future__ import annotations

import json

import pytest

from peft_inspect.records import InspectionError


def config_of(subject):
    return subject.model.config


def test_values_of_the_config_and_of_its_parts(load):
    config = config_of(load("arch:qwen2_audio", config_fields={"text_config.num_hidden_layers": "3", "audio_config.encoder_layers": 2}))
    assert (config.text_config.num_hidden_layers, config.audio_config.encoder_layers) == (3, 2)
    untouched = config_of(load("arch:qwen2_audio"))
    assert config.audio_config.d_model == untouched.audio_config.d_model
    assert config.text_config.vocab_size == untouched.text_config.vocab_size


def test_the_implementation_of_attention_and_experts_is_a_value_like_others(load):
    config = config_of(load("arch:mixtral", config_fields={"attn_implementation": "eager", "experts_implementation": "batched_mm"}))
    assert (config._attn_implementation, config._experts_implementation) == ("eager", "batched_mm")


def test_what_a_class_derives_follows_the_new_value(load):
    config = config_of(load("arch:gemma4_text", config_fields={"num_hidden_layers": 4}))
    assert len(config.layer_types) == 4


def test_lists_with_an_entry_per_layer_follow_the_number_of_layers(load, tmp_path):
    """A config.json writes them out, so they are cut or repeated."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "qwen2", "num_hidden_layers": 4, "layer_types": ["full_attention", "sliding_attention"] * 2}))
    assert config_of(load(str(file), config_fields={"num_hidden_layers": 3})).layer_types == [
        "full_attention",
        "sliding_attention",
        "full_attention",
    ]
    assert len(config_of(load(str(file), config_fields={"num_hidden_layers": 6})).layer_types) == 6


def test_both_spellings_of_a_key_mean_the_same(load, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "gpt2", "n_layer": 5}))
    assert config_of(load(str(file), config_fields={"num_hidden_layers": 2})).n_layer == 2
    assert config_of(load(str(file), config_fields={"n_layer": 2})).num_hidden_layers == 2


def test_a_number_of_labels_outweighs_their_names(load, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(
        json.dumps({"model_type": "bert", "num_hidden_layers": 1, "id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}})
    )
    assert config_of(load(str(file), config_fields={"num_labels": 7})).num_labels == 7


def test_entries_of_free_form_values(load):
    config = config_of(load("arch:llama", config_fields={"rope_parameters.rope_theta": "5e5", "num_hidden_layers": 1}))
    assert config.rope_parameters["rope_theta"] == 5e5


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("num_layers", r"num_layers: the configuration of llava has no 'num_layers'"),
        (
            "num_hidden_layers",
            r"has no 'num_hidden_layers'; did you mean text_config.num_hidden_layers or vision_config.num_hidden_layers\?",
        ),
        ("text_config.hidden_sise", r"the configuration of llama has no 'hidden_sise'; the closest are 'hidden_size'"),
        ("txt_config.hidden_size", r"has no 'txt_config'; the closest are 'text_config'"),
        ("image_token_index.x", r"'x' lies inside a plain value"),
    ],
)
def test_unknown_keys_are_answered_with_the_closest(load, key, message):
    with pytest.raises(InspectionError, match=message):
        load("arch:llava", config_fields={key: 1})


def test_values_that_the_class_refuses(load):
    with pytest.raises(InspectionError, match=r"transformers refuses the configuration of llama with num_hidden_layers=many"):
        load("arch:llama", config_fields={"num_hidden_layers": "many"})
