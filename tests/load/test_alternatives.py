"""Default configurations that do not build as they are."""

from __future__ import annotations

import pytest

from peft_inspect.records import InspectionError


@pytest.mark.parametrize(
    ("model_type", "filled"),
    [
        ("esm", "vocab_size=32000"),
        ("nemotron", "num_key_value_heads=48"),
        ("ministral", "head_dim=128"),
        ("lfm2_moe", "layer_types"),
        ("time_series_transformer", "prediction_length=24"),
        ("diffusion_gemma", "text_config.num_experts=8, text_config.top_k_experts=2, text_config.moe_intermediate_size=9216"),
    ],
)
def test_values_left_open_are_filled_in_and_named(load, model_type, filled):
    notes = load(f"arch:{model_type}").notes
    assert f"the default configuration leaves values open; filled in: {filled}" in notes


def test_what_the_user_set_is_not_filled_in(load):
    assert not any("vocab_size" in note for note in load("arch:esm", config_fields={"vocab_size": 33}).notes)


def test_what_the_first_configuration_needed_mended_is_mended_in_the_filled_one_too(load):
    assert load("arch:esm").model.config.pad_token_id == 1


def test_a_class_that_does_not_build_gives_way_to_a_smaller_one_and_says_so(load):
    subject = load("arch:emu3")
    assert type(subject.model).__name__ == "Emu3ForCausalLM"
    assert any(
        "Emu3ForConditionalGeneration does not build from the default configuration: Emu3ForCausalLM instead" in note
        for note in subject.notes
    )


def test_values_of_a_file_are_never_filled_in(load, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nemotron", "num_hidden_layers": 1}')
    with pytest.raises(InspectionError, match=r"NemotronForCausalLM does not build from the configuration of"):
        load(str(tmp_path))
