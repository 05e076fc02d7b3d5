"""Adapters are read by config and header: whatever is wrong with the files is said in one sentence, and no value is trusted."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from peft_inspect.load.adapter.adapters import read_adapter_files
from peft_inspect.records import InspectionError

KEY = "base_model.model.layers.0.q_proj"
TENSORS = {f"{KEY}.lora_A.weight": torch.ones(4, 16), f"{KEY}.lora_B.weight": torch.zeros(16, 4, dtype=torch.bfloat16)}


def adapter(folder: Path, tensors: dict[str, torch.Tensor] = TENSORS, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], **config}))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(InspectionError) as error:
        read_adapter_files(str(folder))
    return str(error.value)


def test_keys_shapes_dtypes_and_zeros_are_read(tmp_path: Path) -> None:
    (file,) = read_adapter_files(str(adapter(tmp_path)))
    assert file.adapter == "default"
    assert file.path == str(tmp_path)
    assert file.config["r"] == 4
    a, b = file.tensors
    assert (a.key, a.shape, a.dtype, a.zero) == (f"{KEY}.lora_A.weight", (4, 16), "float32", False)
    assert (b.key, b.shape, b.dtype, b.zero) == (f"{KEY}.lora_B.weight", (16, 4), "bfloat16", True)


def test_one_late_value_makes_a_large_tensor_not_zero(tmp_path: Path) -> None:
    late = torch.zeros(700_000)
    late[-1] = 1
    (file,) = read_adapter_files(str(adapter(tmp_path, {"late": late, "never": torch.zeros(700_000)})))
    assert [tensor.zero for tensor in file.tensors] == [False, True]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_one_late_value_that_is_not_finite_is_found(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    bad = torch.ones(5_000_000)
    bad[-1] = value
    (file,) = read_adapter_files(str(adapter(tmp_path, {"bad": bad.to(dtype), "good": torch.ones(3, dtype=dtype)})))
    assert [(tensor.zero, tensor.finite) for tensor in file.tensors] == [(False, False), (False, True)]


def test_whole_numbers_have_no_say_on_finite(tmp_path: Path) -> None:
    numbers = {"flags": torch.zeros(3, dtype=torch.bool), "ids": torch.arange(3), "none": torch.empty(0, 4)}
    (file,) = read_adapter_files(str(adapter(tmp_path, numbers)))
    assert [(tensor.zero, tensor.finite) for tensor in file.tensors] == [(True, None), (False, None), (None, None)]


def test_the_config_file_names_its_folder(tmp_path: Path) -> None:
    assert read_adapter_files(str(adapter(tmp_path) / "adapter_config.json"))[0].path == str(tmp_path)


def test_adapters_in_sub_folders_are_called_like_these(tmp_path: Path) -> None:
    adapter(tmp_path)
    adapter(tmp_path / "policy")
    adapter(tmp_path / "reference")
    assert [file.adapter for file in read_adapter_files(str(tmp_path))] == ["default", "policy", "reference"]


def test_checkpoints_of_a_training_are_one_adapter_and_not_many(tmp_path: Path) -> None:
    for step in (500, 1000, 90):
        adapter(tmp_path / f"checkpoint-{step}")
    (last,) = read_adapter_files(str(tmp_path))
    assert (last.adapter, last.path) == ("default", str(tmp_path / "checkpoint-1000"))
    adapter(tmp_path)
    (final,) = read_adapter_files(str(tmp_path))
    assert final.path == str(tmp_path)


def test_a_file_without_tensors_is_read_and_left_to_the_rules(tmp_path: Path) -> None:
    assert read_adapter_files(str(adapter(tmp_path, {})))[0].tensors == ()


def test_a_pickle_is_refused_with_the_reason(tmp_path: Path) -> None:
    (adapter(tmp_path) / "adapter_model.safetensors").unlink()
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    assert "pickle" in refusal(tmp_path)
    assert "run any code" in refusal(tmp_path)


def test_shards_are_refused_since_peft_loads_one_file(tmp_path: Path) -> None:
    (adapter(tmp_path) / "adapter_model.safetensors").rename(tmp_path / "adapter_model-00001-of-00002.safetensors")
    assert "adapter_model-00001-of-00002.safetensors" in refusal(tmp_path)
    (tmp_path / "adapter_model.safetensors.index.json").write_text("{}")
    assert "several shards" in refusal(tmp_path)


def test_a_folder_without_an_adapter_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert "notes.txt" in refusal(tmp_path)


def test_weights_without_a_config_and_a_config_of_something_else_are_told_apart(tmp_path: Path) -> None:
    (adapter(tmp_path) / "adapter_config.json").write_text('{"model_type": "llama"}')
    assert "no peft_type" in refusal(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": ')
    assert "not valid JSON" in refusal(tmp_path)


def _with(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


DAMAGED = {
    "empty": (b"", "0 bytes"),
    "a few bytes": (b"abc", "no safetensors file"),
    "html instead of weights": (b"<!DOCTYPE html><html>not found</html>" * 4, "no safetensors file"),
    "a git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    "header cut short": (struct.pack("<Q", 5000) + b"{}", "cut short"),
    "values cut short": (_with({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"1234"), "cut short"),
    "header is a list": (_with([1, 2]), "no object"),
    "header is not json": (struct.pack("<Q", 4) + b"\xff{][", "not JSON"),
    "entry without shape": (_with({"a": {"dtype": "F32", "data_offsets": [0, 0]}}), "no shape"),
    "size of another dtype": (_with({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}, b"12345678"), "its shape [4] takes 16"),
    "header in utf-16": (struct.pack("<Q", 4) + "{}".encode("utf-16-le"), "not JSON"),
    "header nested too deeply": (struct.pack("<Q", 100_000) + b"[" * 100_000, "not JSON"),
    "key of half a character": (_with({"\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"), "not JSON"),
    "metadata that is none": (_with({"__metadata__": {"a": 1}}), "no object of texts"),
    "unknown dtype": (_with({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"1234"), "'F99', which the format does not"),
    "dtype that is no text": (
        _with({"a": {"dtype": [1], "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        "[1], which the format does not",
    ),
    "size that is no number": (_with({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"1234"), "no shape"),
    "size beyond all files": (_with({"a": {"dtype": "U8", "shape": [1 << 62] * 99, "data_offsets": [0, 1]}}, b"1"), "of 99 axes takes inf"),
    "half a byte": (_with({"a": {"dtype": "F4", "shape": [1], "data_offsets": [0, 1]}}, b"1"), "takes 0.5"),
    "tensors over one another": (
        _with({key: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for key in "ab"}, b"1234"),
        "'b' overlaps the one before it",
    ),
    "a hole before a tensor": (
        _with({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
        "'a' does not begin where",
    ),
    "bytes behind all tensors": (_with({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"1234"), "end at byte"),
    "offsets the wrong way": (_with({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234"), "before it begins"),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, how: str) -> None:
    content, said = DAMAGED[how]
    file = adapter(tmp_path) / "adapter_model.safetensors"
    file.write_bytes(content)
    assert said in refusal(tmp_path)
    with pytest.raises(SafetensorError), safe_open(file, "pt"):
        pass


@pytest.mark.parametrize(("dtype", "size"), [("F4", 4), ("F6_E2M3", 6), ("F8_E8M0", 8), ("U16", 16), ("U64", 64), ("C64", 64)])
def test_values_of_dtypes_that_no_adapter_has_are_looked_at_by_their_bytes(tmp_path: Path, dtype: str, size: int) -> None:
    header = {key: {"dtype": dtype, "shape": [8], "data_offsets": [at * size, (at + 1) * size]} for at, key in enumerate("ab")}
    file = adapter(tmp_path) / "adapter_model.safetensors"
    file.write_bytes(_with(header, bytes(size) + b"\1" * size))
    with safe_open(file, "pt"):
        pass
    (found,) = read_adapter_files(str(tmp_path))
    assert [(tensor.zero, tensor.finite) for tensor in found.tensors] == [(True, None), (False, None)]


def test_what_is_no_folder_and_no_hub_id_is_no_adapter() -> None:
    with pytest.raises(InspectionError, match="no adapter"):
        read_adapter_files("arch:llama")
