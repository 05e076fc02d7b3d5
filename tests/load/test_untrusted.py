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
