"""What has no end is refused before it is read, matched or built."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from peft_inspect.load.adapter.safetensors_values import read_tensors
from peft_inspect.load.bounds import Counted, require_sizes
from peft_inspect.load.files import plain_value, read_mapping
from peft_inspect.load.lora.lora_values import check_values
from peft_inspect.load.lora.pattern_time import require_end
from peft_inspect.reading import read_text, user_path
from peft_inspect.records import InspectionError

_LEVELS = (f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True))
_BOMB = "\n".join(("a: &a [x]", *_LEVELS))


@pytest.fixture(scope="module")
def model():
    with torch.device("meta"):
        return LlamaForCausalLM(
            LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, vocab_size=8)
        )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1,000,000,000, and no more than 5,000 layers"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1, and a model has no fewer than 0 layers"),
        ({"text_config": {"n_layer": 5001}}, "no more than 5,000 layers"),
        ({"depths": [2, 10**7]}, "depths is 10,000,000"),
        ({"num_labels": 10**9}, "no more than 1,000,000 labels"),
        ({"num_experts": 10**8}, "no more than 100,000 experts"),
        ({"hidden_size": 2**63}, "no more than 9,223,372,036,854,775,807"),
        ({"hidden_size": -(2**63)}, "hidden_size is -9,223,372,036,854,775,808"),
        ({"vocab_size": 10**5000}, "vocab_size is a number of 16,610 bits"),
    ],
)
def test_sizes_that_no_model_has_are_refused_by_name(values, said):
    with pytest.raises(InspectionError, match=said):
        require_sizes(values, "config.json")


def test_sizes_of_the_largest_models_are_taken():
    require_sizes(
        {"num_hidden_layers": 1000, "n_routed_experts": 512, "vocab_size": 2**20, "num_labels": 21_843, "rope_theta": 1e7}, "config.json"
    )


def test_building_stops_where_modules_have_no_end(monkeypatch):
    monkeypatch.setattr("peft_inspect.load.bounds.MOST_MODULES", 3)
    count = Counted("a model")
    for _ in range(3):
        count(None, "", None)
    with pytest.raises(InspectionError, match="a model has more than 3 modules"):
        count(None, "", None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers_to_transform", list(range(10**6))),
        ("layer_replication", [[0, 2]] * 200_000),
        ("layer_replication", [[0, 10**9]]),
        ("layer_replication", [[0]]),
        ("r", 10**18),
        ("rank_pattern", {"q_proj": 10**18}),
        ("alpha_pattern", {"q_proj": 10**5000}),
    ],
)
def test_counts_in_a_lora_config_are_bounded(field, value):
    with pytest.raises(InspectionError, match=field):
        check_values({field: value}, "adapter_config.json")


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": r"((a|.)*)*zz"},
        {"target_modules": r"(.*.*.*.*.*.*)*x(a|a)*y"},
        {"target_modules": ["q_proj"], "exclude_modules": r"(.+)+\d{9}"},
        {"target_modules": ["q_proj"], "rank_pattern": {r"(\w+.?)+!": 4}},
        {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": [r"(\w+.?)+!"]},
    ],
)
def test_a_pattern_without_an_end_is_refused_in_seconds_on_any_thread(model, fields):
    said = []

    def try_it():
        with pytest.raises(InspectionError) as caught:
            require_end(fields, model)
        said.append(str(caught.value))

    thread = threading.Thread(target=try_it, daemon=True)
    thread.start()
    thread.join(100)
    assert said
    assert "may never end" in said[0]
    assert next(field for field in fields if not isinstance(fields[field], list) or field == "layers_pattern") in said[0]


@pytest.mark.parametrize(
    "pattern",
    [
        r".*\.q_proj",
        r"model\.layers\.\d+\.self_attn\.(q|k|v|o)_proj",
        r"(?:.*?(?:vision|language|text).*?(?:self_attn|attention|attn|mlp).*?(?:q_proj|k_proj|v_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.x)",
        r"((",  # PEFT says what is wrong with it
    ],
)
def test_patterns_that_people_write_pass(model, pattern):
    require_end({"target_modules": pattern, "exclude_modules": pattern}, model)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "lora.json")
    before = time.monotonic()
    with pytest.raises(InspectionError, match="is a pipe or a device where a file is needed"):
        read_mapping(tmp_path / "lora.json")
    assert time.monotonic() - before < 5


@pytest.mark.parametrize(("path", "said"), [("/dev/zero", "a pipe or a device"), ("/", "a folder"), ("/" + "x" * 5000, "too long")])
def test_what_is_no_file_is_said(path, said):
    with pytest.raises(InspectionError, match=said):
        read_text(Path(path))


def test_a_file_without_end_is_read_no_further_than_its_kind_needs(tmp_path):
    path = tmp_path / "lora.json"
    with path.open("wb") as file:
        file.truncate(200 << 30)
    with pytest.raises(InspectionError, match="has 214,748,364,800 bytes"):
        read_mapping(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_BOMB, "stand for"),
        ("target_modules: &a [*a]\n", "refer to themselves"),
        ("a: &a\n  <<: *a\n", "refer to themselves"),
        ("r: !!int\n", "does not fit its tag"),
        ("r: !!python/object/apply:os.system ['id']\n", "could not determine a constructor"),
        ("r: " + "[" * 10_000, "nested too deeply"),
        ("r: " + "9" * 5000, "digits"),
    ],
)  # fmt: skip
def test_yaml_that_grows_or_runs_is_refused(tmp_path, text, said):
    path = tmp_path / "lora.yaml"
    path.write_text(text)
    with pytest.raises(InspectionError, match=said):
        read_mapping(path)


def test_aliases_that_people_write_are_read(tmp_path):
    path = tmp_path / "lora.yaml"
    path.write_text("base: &base {r: 8}\nlora:\n  <<: *base\n  targets: &t [q_proj]\n  also: *t\n")
    assert read_mapping(path)["lora"] == {"r": 8, "targets": ["q_proj"], "also": ["q_proj"]}


@pytest.mark.parametrize(
    ("length", "header", "said"),
    [
        (99_000_000, b"{}", "a header of 99,000,000 bytes"),
        (None, json.dumps({f"t{i}": {} for i in range(200_001)}).encode(), "has 200,001 tensors"),
    ],
)
def test_headers_are_bounded(tmp_path, length, header, said):
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(struct.pack("<Q", length or len(header)) + header)
    os.truncate(path, 8 + (length or len(header)))
    with pytest.raises(InspectionError, match=said):
        read_tensors(path)


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000, '{"a":' * 100_000])
def test_values_of_options_that_are_no_json_stay_text(text):
    assert plain_value(text) == text


@pytest.mark.parametrize(("text", "said"), [("~nosuchuser/x", "whose home is not known"), ("x" * 5000, "can be no path")])
def test_what_can_be_no_path_is_said(text, said):
    with pytest.raises(InspectionError, match=said):
        user_path(text)
