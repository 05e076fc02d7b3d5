"""What a file says is read and never run, and nothing in it ends in anything but a report or one sentence."""

from __future__ import annotations

import json
import sys

import pytest

from peft_inspect.records import InspectionError

MARKER = "ran = True\n\n\ndef build():\n    raise SystemExit\n"


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A module on the path that is never to be imported."""
    (tmp_path / "planted.py").write_text(MARKER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield
    assert "planted" not in sys.modules


@pytest.mark.usefixtures("code")
@pytest.mark.parametrize("reference", ["planted:build", "planted.py:build"])
def test_an_adapters_base_that_is_code_is_not_run(load, tmp_path, reference):
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "base_model_name_or_path": reference}
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(InspectionError, match=r"which is code and not run because a file says so: .* name it yourself with --base"):
        load(str(folder))


@pytest.mark.usefixtures("code")
@pytest.mark.parametrize(
    "text",
    [
        "base_model: planted:build\nadapter: lora\nlora_r: 4\nlora_target_linear: true\n",
        "model_name_or_path: planted.py:build\nfinetuning_type: lora\n",
        "model_name_or_path: planted:build\nr: 4\ntarget_modules: [q_proj]\n",
    ],
)
def test_a_lora_files_model_that_is_code_is_not_run(load, tmp_path, text):
    (tmp_path / "lora.yaml").write_text(text)
    with pytest.raises(InspectionError, match=r"lora.yaml names the model 'planted\S*build', which is code and not run"):
        load(lora=str(tmp_path / "lora.yaml"))


@pytest.mark.parametrize(
    ("fields", "asks"),
    [
        ({"_attn_implementation": "flash_attention_2"}, "flash_attention_2"),
        ({"attn_implementation": "some-org/kernel"}, "some-org/kernel"),
        ({"_experts_implementation": "some-org/experts"}, "some-org/experts"),
    ],
)
def test_kernels_that_a_config_asks_for_are_neither_fetched_nor_needed(load, tiny_llama, fields, asks):
    file = tiny_llama / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    subject = load(str(tiny_llama))
    assert subject.model.config._attn_implementation == "sdpa"
    assert any(f"the config asks for {asks}" in note for note in subject.notes)


def test_attention_that_transformers_brings_stays_as_the_config_asks(load, tiny_llama):
    file = tiny_llama / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "attn_implementation": "eager"}))
    subject = load(str(tiny_llama))
    assert subject.model.config._attn_implementation == "eager"
    assert not subject.notes


@pytest.fixture
def adapter(load, tiny_llama, tmp_path):
    """`adapter(**fields)` is the folder of an adapter whose config has these fields; `bytes` instead replaces the file."""
    folder = tmp_path / "adapter"
    load(str(tiny_llama), weights="random", lora_fields={"r": 2, "target_modules": "q_proj,v_proj"}).model.save_pretrained(folder)
    file = folder / "adapter_config.json"

    def edit(text=None, **fields):
        config = {**json.loads(file.read_text()), "base_model_name_or_path": str(tiny_llama), **fields}
        file.write_bytes(json.dumps(config).encode() if text is None else text)
        return str(folder)

    return edit


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r": "8"}, r'r is "8", and a whole number is needed'),
        ({"r": True}, r"r is true, and a whole number is needed"),
        ({"r": None}, r"r is null, and a whole number is needed"),
        ({"rank_pattern": None}, r"rank_pattern is null, and a mapping of names to whole numbers is needed"),
        ({"trainable_token_indices": 0}, r"trainable_token_indices is 0, and a list of token ids"),
        ({"lora_alpha": [1]}, r"lora_alpha is \[1\], and a number is needed"),
        ({"lora_dropout": "a"}, r'lora_dropout is "a", and a number is needed'),
        ({"use_dora": "yes"}, r'use_dora is "yes", and true or false is needed'),
        ({"peft_type": ["LORA"]}, r'peft_type is \["LORA"\], and a name is needed'),
        ({"task_type": 3}, r"task_type is 3, and a name is needed"),
        ({"target_modules": {"q_proj": 1}}, r"target_modules is .*, and a list of names or one regular expression is needed"),
        ({"target_modules": [None]}, r"target_modules is \[null\], and a list of names or one regular expression is needed"),
        ({"target_modules": "((("}, r"target_modules is no regular expression: missing \)"),
        ({"rank_pattern": {"(((": 4}}, r"rank_pattern is no regular expression: missing \)"),
        ({"rank_pattern": {"q_proj": "4"}}, r"rank_pattern is .*, and a mapping of names to whole numbers is needed"),
        ({"modules_to_save": "lm_head"}, r'modules_to_save is "lm_head", and a list of names is needed'),
        ({"layers_to_transform": "1"}, r'layers_to_transform is "1", and a whole number or a list of them is needed'),
        ({"trainable_token_indices": "a"}, r'trainable_token_indices is "a", and a list of token ids'),
        ({"auto_mapping": "LlamaModel"}, r'auto_mapping is "LlamaModel", and a mapping with base_model_class'),
        ({"base_model_name_or_path": 5}, r"base_model_name_or_path is 5, and a name is needed"),
        ({"target_modules": ["x" * 500, 1]}, r'target_modules is \["x{70,80}\.\.\., and a list'),
    ],
)
def test_a_value_of_another_kind_than_its_field_holds_is_named(load, adapter, fields, message):
    with pytest.raises(InspectionError, match=rf"adapter_config.json: {message}"):
        load(adapter(**fields))


def test_values_in_lora_files_and_flags_are_looked_at_as_well(load, tiny_llama, tmp_path):
    (tmp_path / "lora.yaml").write_text("target_modules: [q_proj]\nmodules_to_save: lm_head\n")
    with pytest.raises(InspectionError, match=r'lora.yaml: modules_to_save is "lm_head", and a list of names is needed'):
        load(str(tiny_llama), lora=str(tmp_path / "lora.yaml"))
    with pytest.raises(InspectionError, match=r'the flags: r is "eight", and a whole number is needed'):
        load(str(tiny_llama), lora_fields={"r": "eight", "target_modules": "q_proj"})


def test_what_peft_itself_rejects_names_the_adapter_and_its_base(load, adapter, tiny_llama):
    with pytest.raises(InspectionError, match=rf"the adapter .* does not go onto {tiny_llama} \(LlamaForCausalLM\): PEFT rejects"):
        load(adapter(bias="some"))


def test_how_an_adapter_was_initialised_does_not_matter_without_weights(load, adapter):
    """PEFT would want packages or data for it, and the file brings the values."""
    for how in ("loftq", "corda", "pissa_niter_4"):
        assert load(adapter(init_lora_weights=how)).model.peft_config["default"].r == 2


def test_a_class_that_peft_noted_is_taken_only_where_it_is_a_model(load, adapter):
    for name in ("AutoModel", "pipeline", "__version__", ["LlamaModel"]):
        folder = adapter(auto_mapping={"base_model_class": name, "parent_library": "transformers"})
        assert type(load(folder).model.get_base_model()).__name__ == "LlamaForCausalLM"


NESTED = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
LONG = b'{"peft_type": "LORA", "r": ' + b"9" * 5000 + b"}"


@pytest.mark.parametrize(("text", "message"), [(NESTED, "it is nested too deeply"), (LONG, "Exceeds the limit")])
def test_json_that_python_cannot_read_is_one_sentence(load, adapter, text, message):
    with pytest.raises(InspectionError, match=rf"adapter_config.json is JSON that cannot be read: {message}"):
        load(adapter(text))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("lora.yaml", "a: " + "[" * 5000, "is YAML that cannot be read: it is nested too deeply"),
        ("lora.yaml", "date: 2026-13-01\n", "is YAML that cannot be read: month must be in"),
        ("lora.yaml", "1: 2\n", "has 1 where the name of a field is needed"),
        ("lora.toml", "a = " + "[" * 5000, "is TOML that cannot be read: it is nested too deeply"),
    ],
)
def test_other_files_that_cannot_be_read_as_well(load, tiny_llama, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InspectionError, match=message):
        load(str(tiny_llama), lora=str(tmp_path / name))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": ["llama"]}, r"model_type is \['llama'\], and a name is needed"),
        ({"architectures": "LlamaForCausalLM"}, r"architectures is 'LlamaForCausalLM', and a list of class names is needed"),
        ({"architectures": [None]}, r"architectures is \[None\], and a list of class names is needed"),
        ({"hidden_size": "16"}, r"refuses the configuration of .*: Validation error for field 'hidden_size': .*expected int"),
    ],
)
def test_values_of_a_models_config_of_another_kind_are_named(load, tiny_llama, fields, message):
    file = tiny_llama / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    with pytest.raises(InspectionError, match=message):
        load(str(tiny_llama))


def test_what_stands_in_the_place_of_a_file_is_said(load, adapter, tmp_path):
    folder = tmp_path / "adapter"
    weights = folder / "adapter_model.safetensors"
    adapter()
    weights.unlink()
    weights.symlink_to("gone")
    with pytest.raises(InspectionError, match=r"adapter_model.safetensors is a link to gone, and nothing is there"):
        load(str(folder))
    weights.unlink()
    weights.mkdir()
    with pytest.raises(InspectionError, match=r"adapter_model.safetensors is a folder where a file is needed"):
        load(str(folder))


def test_weights_of_an_adapter_without_its_config_are_no_model(load, adapter, tmp_path):
    adapter()
    (tmp_path / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(InspectionError, match=r"adapter has no adapter_config.json; it holds .*adapter_model.safetensors"):
        load(str(tmp_path / "adapter"))


def test_a_base_that_cannot_be_had_is_said_to_be_the_adapters(load, adapter, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InspectionError, match=r"empty has no config.json.* \(this is the base model that .*adapter names: --base MODEL"):
        load(adapter(base_model_name_or_path=str(tmp_path / "empty")))
    with pytest.raises(InspectionError, match=r"empty has no config.json; it is empty$"):
        load(adapter(), base=str(tmp_path / "empty"))
