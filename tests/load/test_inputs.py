"""--batch, --loss and --optimizer as files and callables."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from peft_inspect.records import InspectionError


def test_a_safetensors_file_is_a_batch(load, tiny_llama, tmp_path):
    save_file({"input_ids": torch.tensor([[1, 2]]), "labels": torch.tensor([[1, 2]])}, tmp_path / "batch.safetensors")
    batch = load(str(tiny_llama), batch=str(tmp_path / "batch.safetensors")).batch
    assert batch["input_ids"].tolist() == [[1, 2]]


def test_numbers_of_a_json_file_become_tensors_and_the_rest_stays(load, tiny_llama, tmp_path):
    content = {
        "input_ids": [[1, 2]],
        "pixel_values": [[0.5]],
        "attention_mask": [[True]],
        "use_cache": False,
        "texts": ["a"],
        "sizes": [{"h": 1}],
    }
    (tmp_path / "batch.json").write_text(json.dumps(content))
    batch = load(str(tiny_llama), batch=str(tmp_path / "batch.json")).batch
    assert [batch[name].dtype for name in ("input_ids", "pixel_values", "attention_mask")] == [torch.int64, torch.float32, torch.bool]
    assert (batch["use_cache"], batch["texts"], batch["sizes"]) == (False, ["a"], [{"h": 1}])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("batch.json", "[1]", r"batch.json holds a list: a batch is an object of keyword inputs"),
        ("batch.json", '{"input_ids": [[1], [1, 2]]}', r"batch.json: input_ids is no tensor"),
        ("batch.json", '{"input_ids": ', r"batch.json is not valid JSON"),
        ("batch.safetensors", "junk", r"batch.safetensors is no valid safetensors file"),
        ("batch.pt", "", r"is no batch: give a .safetensors or .json file, or a callable"),
    ],
)
def test_files_that_are_no_batch(load, tiny_llama, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InspectionError, match=message):
        load(str(tiny_llama), batch=str(tmp_path / name))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("batch", "make", r"make gave a list: a batch is a dict of keyword inputs"),
        ("batch", "raises", r"raises raised ZeroDivisionError"),
        ("loss", "number", r"number is a int: a loss is a callable loss\(model, batch\)"),
        (
            "optimizer",
            "no_optimizer",
            r"no_optimizer returned a Linear|returned a LlamaForCausalLM: it must return a torch.optim.Optimizer",
        ),
        ("optimizer", "make", r"make returned a list: it must return a torch.optim.Optimizer"),
        ("optimizer", "two", r"two is called with 1 argument, and takes \(model, rate\).*; write a callable optimizer\(model\)"),
        ("optimizer", "of_another", r"of_another holds no parameter of this model, so it was made for another one"),
        ("optimizer", "SGD", r"SGD is given its parameters by whoever calls it"),
        ("batch", "two", r"two is called with no arguments.*; write one that needs none"),
    ],
)
def test_callables_that_give_something_else(load, tiny_llama, tmp_path, option, value, message):
    script = tmp_path / "inputs.py"
    script.write_text(
        "import torch\nfrom torch.optim import SGD\nnumber = 3\ndef make(): return [1]\ndef raises(): 1 / 0\n"
        "def no_optimizer(model): return model\ndef two(model, rate): ...\nof_another = SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)\n"
    )
    with pytest.raises(InspectionError, match=message):
        load(str(tiny_llama), **{option: f"{script}:{value}"})


def test_an_optimizer_object_and_a_loader_are_taken_for_what_they_hold(load, tmp_path):
    script = tmp_path / "inputs.py"
    script.write_text(
        "import torch\nmodel = torch.nn.Linear(2, 1)\noptimizer = torch.optim.SGD(model.parameters(), lr=1.0)\n"
        "def made(): return optimizer\n"
        "loader = torch.utils.data.DataLoader([{'input': torch.ones(2)}] * 4, batch_size=2)\n"
    )
    for name in ("optimizer", "made"):
        subject = load(f"{script}:model", optimizer=f"{script}:{name}", batch=f"{script}:loader")
        assert subject.optimizer.param_groups[0]["params"] == list(subject.model.parameters())
    assert subject.batch["input"].shape == (2, 2)


def test_a_dict_in_the_code_is_a_batch(load, tiny_llama, tmp_path):
    (tmp_path / "inputs.py").write_text("import torch\nBATCH = {'input_ids': torch.ones(1, 2, dtype=torch.long)}\n")
    assert load(str(tiny_llama), batch=f"{tmp_path / 'inputs.py'}:BATCH").batch["input_ids"].shape == (1, 2)


def test_the_users_own_content_is_given_as_it_is_and_checked_to_exist(load, tiny_llama, tmp_path):
    (tmp_path / "cat.png").write_bytes(b"")
    subject = load(str(tiny_llama), text="a cat", image=str(tmp_path / "cat.png"))
    assert subject.content == {"text": "a cat", "image": str(tmp_path / "cat.png")}
    with pytest.raises(InspectionError, match=r"there is no audio file nowhere.wav"):
        load(str(tiny_llama), audio="nowhere.wav")
