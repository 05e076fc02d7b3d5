"""Adapters that other tools wrote: read, named, and written as PEFT keeps them; what is suggested leaves nothing to be found."""

from __future__ import annotations

import json
import re

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from typer.testing import CliRunner

from peft_inspect.cli import app

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT and transformers warn about each other while saving

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
KEY = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<side>[AB])\.weight")


@pytest.fixture
def base(tmp_path):
    """The folder of a tiny base with random weights."""
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2)).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def trained(base, tmp_path):
    """A trained adapter of the base, as PEFT saves it."""
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
    return _saved(model, tmp_path / "trained")


def _saved(model, folder):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def check(*arguments):
    """Exit code and findings of `check` on files alone."""
    ran = CliRunner().invoke(app, ["check", *map(str, arguments), "--select", "PI4", "--format", "json"])
    assert ran.exit_code in (0, 1), ran.stderr
    return json.loads(ran.stdout)["findings"]


def mlx(folder):
    """As mlx-lm writes it: factors the other way round, its own config."""
    tensors = {f"{m['path']}.lora_{m['side'].lower()}": value.T.contiguous() for m, value in _named(folder)}
    (folder / "adapter_model.safetensors").unlink()
    save_file(tensors, folder / "adapters.safetensors")
    own = {"fine_tune_type": "lora", "num_layers": 2, "model": "x", "lora_parameters": {"rank": 4, "scale": 2.0, "dropout": 0.0}}
    (folder / "adapter_config.json").write_text(json.dumps(own))


def kohya(folder):
    """Underscores for dots, and a scaling of its own: alpha 4 at rank 4, where the config says 8."""
    tensors = {}
    for match, value in _named(folder):
        path = f"lora_te_{match['path'].replace('.', '_')}"
        up = match["side"] == "B"
        tensors[f"{path}.lora_{'up' if up else 'down'}.weight"] = value * 2 if up else value
        tensors[f"{path}.alpha"] = torch.tensor(4.0)
    save_file(tensors, folder / "adapter_model.safetensors")


def swift(folder):
    """ms-swift's own tuner: no prefix, the adapter's name in the keys, swift_type for peft_type."""
    save_file({f"{m['path']}.lora_{m['side']}.default.weight": value for m, value in _named(folder)}, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "peft_type": None, "swift_type": "LORA"}))


def transposed(folder):
    save_file({m[0]: value.T.contiguous() for m, value in _named(folder)}, folder / "adapter_model.safetensors")


def _named(folder):
    return [(KEY.fullmatch(key), value) for key, value in load_file(folder / "adapter_model.safetensors").items()]


@pytest.mark.parametrize(
    ("write", "code", "said"),
    [
        (mlx, "PI401", "have the names of MLX"),
        (kohya, "PI401", "have the names of kohya-ss"),
        (swift, "PI401", "find no place in the model"),
        (transposed, "PI403", "are transposed"),
    ],
)
def test_what_other_tools_wrote_is_named_and_converted(base, trained, tmp_path, write, code, said):
    before = dict(PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), trained).state_dict())
    scaling = 2.0
    write(trained)
    (found,) = check(trained, "--base", base, "--suggest", tmp_path / "converted")
    assert (found["code"], said in found["message"]) == (code, True)
    assert check(tmp_path / "converted", "--base", base) == []
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), tmp_path / "converted")
    assert model.base_model.model.model.layers[0].self_attn.q_proj.scaling["default"] == scaling
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.allclose(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ("LitGPT", lambda m: f"transformer.h.{_layer(m)}.attn.qkv.{m['path'][-6]}.lora_{m['side']}"),
        (
            "Megatron",
            lambda m: f"decoder.layers.{_layer(m)}.self_attention.linear_{m['path'][-6]}.adapter.linear_{'io'[m['side'] == 'B']}n.weight",
        ),
        ("torchtune", lambda m: f"layers.{_layer(m)}.attn.{m['path'][-6:]}.lora_{m['side'].lower()}.weight"),
    ],
)
def test_formats_without_a_mapping_are_named(base, trained, tool, name):
    tensors = {name(match).replace("linear_on.", "linear_out."): value for match, value in _named(trained)}
    save_file(tensors, trained / "adapter_model.safetensors")
    (found,) = check(trained, "--base", base)
    assert f"have the names of {tool}" in found["message"]
    assert "convert the file" in found["fix"]


def _layer(match):
    return re.findall(r"layers\.(\d+)", match["path"])[0]


def test_the_target_parameters_that_are_suggested_place_every_tensor(tmp_path):
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "head_dim": 8, "num_key_value_heads": 2}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **experts))
    model.save_pretrained(tmp_path / "base")
    _saved(get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], target_parameters=EXPERTS)), tmp_path / "lost")
    config = json.loads((tmp_path / "lost/adapter_config.json").read_text())
    (tmp_path / "lost/adapter_config.json").write_text(json.dumps({**config, "target_parameters": None}))
    (found,) = check(tmp_path / "lost", "--base", tmp_path / "base", "--suggest", tmp_path / "lost.json")
    assert found["code"] == "PI401"
    assert json.loads((tmp_path / "lost.json").read_text())["target_parameters"] == EXPERTS
    (tmp_path / "lost/adapter_config.json").write_text((tmp_path / "lost.json").read_text())
    assert check(tmp_path / "lost", "--base", tmp_path / "base") == []


def test_a_trained_adapter_in_a_sub_folder_of_an_untrained_one_is_named(base, trained, tmp_path):
    fresh = get_peft_model(LlamaForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    fresh.save_pretrained(tmp_path / "out")
    (tmp_path / "out/best").mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "out/best" / file).write_bytes((trained / file).read_bytes())
    (found,) = check(tmp_path / "out", "--base", base)
    assert found["code"] == "PI407"
    assert "load the sub-folder 'best'" in found["fix"]


def test_tokens_beyond_the_vocabulary_are_an_error_by_file_and_by_flags(base, trained):
    config = json.loads((trained / "adapter_config.json").read_text())
    (trained / "adapter_config.json").write_text(json.dumps({**config, "trainable_token_indices": [60, 70]}))
    for arguments in ((trained, "--base", base), (base, "--target-modules", "q_proj", "--set", "trainable_token_indices=[60, 70]")):
        ran = CliRunner().invoke(app, ["check", *map(str, arguments), "--select", "PI117", "--format", "json"])
        (found,) = json.loads(ran.stdout)["findings"]
        assert ran.exit_code == 1
        assert "trainable_token_indices names 70, and base_model.model.model.embed_tokens has the rows 0–63" in found["message"]
    ran = CliRunner().invoke(
        app, ["check", str(base), "--weights", "random", "--target-modules", "q_proj", "--set", "trainable_token_indices=[70]"]
    )
    assert ran.exit_code == 2
    assert "trainable_token_indices names 70, and the embedding of LlamaForCausalLM has 64 rows" in ran.stderr


def test_a_folder_for_the_converted_adapter_is_not_the_adapters_own(base, trained):
    mlx(trained)
    ran = CliRunner().invoke(app, ["check", str(trained), "--base", str(base), "--select", "PI4", "--suggest", str(trained)])
    assert ran.exit_code == 2
    assert "would write over the adapter itself" in ran.stderr
    ran = CliRunner().invoke(
        app, ["check", "arch:llama", "--reduce", "--target-modules", "q_proj", "--select", "PI1", "--suggest", "somewhere"]
    )
    assert ran.exit_code == 2
    assert "--suggest somewhere is a folder, for one converted adapter" in ran.stderr
