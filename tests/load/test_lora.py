"""The LoRA config: files of three kinds, flags over files, and what is wrong with either."""

from __future__ import annotations

import json

import pytest

from peft_inspect.records import InspectionError

FIELDS = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lora.json", json.dumps(FIELDS)),
        ("lora.yaml", "r: 4\nlora_alpha: 12\ntarget_modules: [q_proj, v_proj]\n"),
        ("lora.toml", 'r = 4\nlora_alpha = 12\ntarget_modules = ["q_proj", "v_proj"]\n'),
    ],
)
def test_the_same_fields_in_three_kinds_of_file(load, tiny_llama, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    subject = load(str(tiny_llama), lora=str(tmp_path / name))
    assert subject.requested == {"peft_type": "LORA", **FIELDS}
    assert subject.source_file == str(tmp_path / name)
    assert subject.model.peft_config["default"].r == 4


def test_flags_win_over_the_file(load, tiny_llama, tmp_path):
    (tmp_path / "lora.json").write_text(json.dumps(FIELDS))
    subject = load(
        str(tiny_llama), lora=str(tmp_path / "lora.json"), lora_fields={"r": 2, "target_modules": "all-linear", "lora_alpha": None}
    )
    assert (subject.requested["r"], subject.requested["target_modules"], subject.requested["lora_alpha"]) == (2, "all-linear", 12)


@pytest.mark.parametrize(
    ("flag", "meant"),
    [("q_proj", ["q_proj"]), ("q_proj,v_proj", ["q_proj", "v_proj"]), ("all-linear", "all-linear"), (r".*\.(q|v)_proj", r".*\.(q|v)_proj")],
)
def test_a_flag_of_names_is_a_list_and_anything_else_a_pattern(load, tiny_llama, flag, meant):
    assert load(str(tiny_llama), lora_fields={"target_modules": flag}).requested["target_modules"] == meant


def test_values_of_set_flags_are_json_where_they_are(load, tiny_llama):
    fields = {
        "target_modules": "q_proj",
        "use_dora": "true",
        "rank_pattern": '{"q_proj": 2}',
        "layers_to_transform": "0",
        "bias": "lora_only",
    }
    subject = load(str(tiny_llama), lora_fields=fields)
    assert (subject.requested["use_dora"], subject.requested["rank_pattern"], subject.requested["layers_to_transform"]) == (
        True,
        {"q_proj": 2},
        0,
    )


@pytest.mark.parametrize("peft_type", ["ADALORA", "LOHA", "LOKR", "IA3", "OFT", "VERA"])
def test_any_type_that_peft_knows(load, tiny_llama, peft_type):
    fields = {"peft_type": peft_type.lower(), "target_modules": "q_proj,v_proj"}
    if peft_type == "IA3":
        fields["feedforward_modules"] = []
    if peft_type == "ADALORA":
        fields["total_step"] = 10
    subject = load(str(tiny_llama), lora_fields=fields, weights="random")
    assert subject.model.peft_config["default"].peft_type == peft_type


def test_a_saved_adapter_config_is_a_lora_config_and_names_its_base(load, tiny_llama, tmp_path):
    saved = {**FIELDS, "peft_type": "LORA", "peft_version": "9.0.0", "base_model_name_or_path": str(tiny_llama), "from_the_future": 1}
    (tmp_path / "adapter_config.json").write_text(json.dumps(saved))
    subject = load(lora=str(tmp_path))
    assert subject.source == str(tiny_llama)
    assert any("PEFT ignores fields that it does not know: from_the_future" in note for note in subject.notes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora_aplha": 1}, r"LoraConfig has no field 'lora_aplha'; the closest are 'lora_alpha'"),
        ({"rank": 16}, r"LoraConfig has no field 'rank'; PEFT calls it 'r'"),
        ({"dropout": 0.1}, r"LoraConfig has no field 'dropout'; PEFT calls it 'lora_dropout'"),
        ({"peft_type": "lorra"}, r"PEFT knows no type 'LORRA'; the closest"),
        ({"task_type": "SEQ_CLASS", "target_modules": "q_proj"}, r"PEFT refuses this LORA config: Invalid task type: 'SEQ_CLASS'"),
        ({"r": 0, "target_modules": "q_proj"}, r"`r` should be a positive integer"),
    ],
)
def test_fields_and_values_that_do_not_exist_are_named(load, tiny_llama, fields, message):
    with pytest.raises(InspectionError, match=message):
        load(str(tiny_llama), lora_fields=fields)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("lora.json", '{"r": 8,}', r"lora.json is not valid JSON: .* in line 1, column"),
        ("lora.yaml", "r: [8\nx: 1\n", r"lora.yaml is not valid YAML: .* in line"),
        ("lora.toml", "r = ", r"lora.toml is not valid TOML"),
        ("lora.yaml", "- r\n", r"lora.yaml holds a list where a mapping of fields is needed"),
        ("lora.yaml", "", r"lora.yaml holds nothing where a mapping of fields is needed"),
        ("lora.ini", "r=8", r"lora.ini is read by its ending"),
        ("lora.yaml", "ranks: 8", r"lora.yaml: LoraConfig has no field 'ranks'"),
        ("lora.yaml", "r: !!python/object/apply:os.system ['touch hacked']", r"is not valid YAML"),
    ],
)
def test_damaged_files_say_where(load, tiny_llama, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InspectionError, match=message):
        load(str(tiny_llama), lora=str(tmp_path / name))


def test_a_missing_file_is_named(load, tiny_llama):
    with pytest.raises(InspectionError, match=r"there is no file nowhere.yaml"):
        load(str(tiny_llama), lora="nowhere.yaml")


def test_the_rank_that_adalora_counts_is_no_parameter_to_train_without_weights_either(load, tiny_llama, tmp_path):
    (tmp_path / "ada.json").write_text(json.dumps({"peft_type": "ADALORA", "target_modules": ["q_proj"], "total_step": 100}))
    model = load(str(tiny_llama), lora=str(tmp_path / "ada.json"), weights="none").model
    ranks = {path: value.requires_grad for path, value in model.named_parameters() if "ranknum" in path}
    assert ranks
    assert not any(ranks.values())


def test_copies_that_peft_ties_are_one_tensor_without_weights_too(load):
    fields = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"], "ensure_weight_tying": True}
    model = load("arch:llama", lora_fields=fields, config_fields={"tie_word_embeddings": True, "num_hidden_layers": 1}).model
    copies = {path: id(value) for path, value in model.named_parameters(remove_duplicate=False) if "modules_to_save" in path}
    assert len(copies) == 2
    assert len(set(copies.values())) == 1
