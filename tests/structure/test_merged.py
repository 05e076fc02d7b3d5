"""Merged checkpoints against their base and adapter: what PEFT's own merge gives, and what else scripts leave behind."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch
from peft import LoHaConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from peft_inspect.inspection import inspect
from peft_inspect.records import Request

pytestmark = pytest.mark.filterwarnings("ignore")

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "pad_token_id": 0}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def llama(**fields):
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, "num_key_value_heads": 2, "attention_bias": True, **fields}))


def qwen():
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SIZES, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, head_dim=8)
    )


def mixtral():
    return MixtralForCausalLM(MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=4))


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32, bos_token_id=1, eos_token_id=1))


def trained(model, config, dtype):
    """The model in a dtype with an adapter that moved."""
    torch.manual_seed(0)
    wrapped = get_peft_model(model.to(dtype), config)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return wrapped


@pytest.fixture
def folders(tmp_path):
    """`folders(build, config, dtype)` saves base and adapter, and merges the adapter as loaded from there."""

    def run(build, config, dtype=torch.bfloat16, change=lambda model: model.merge_and_unload()):
        torch.manual_seed(1)
        base = build().to(dtype)
        base.save_pretrained(tmp_path / "base")
        trained(copy.deepcopy(base), config, dtype).save_pretrained(tmp_path / "adapter")
        loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "adapter")
        change(loaded).save_pretrained(tmp_path / "merged")
        return tmp_path

    return run


def judged(folder):
    """The report, and what became of the adapter's tensors."""
    report = inspect(Request(model=str(folder / "merged"), adapter=str(folder / "adapter"), base=str(folder / "base")), "check")
    return report, report.adapter_files[0].merged


LORA = {"r": 4, "lora_alpha": 12}
HEALTHY = {
    "linear layers": (llama, LoraConfig(**LORA, target_modules=["q_proj", "v_proj", "down_proj"])),
    "rank-stabilised, with patterns": (
        llama,
        LoraConfig(**LORA, use_rslora=True, target_modules=["q_proj", "v_proj"], rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 3}),
    ),
    "DoRA": (llama, LoraConfig(**LORA, use_dora=True, target_modules=["q_proj", "up_proj"])),
    "embeddings and the head": (llama, LoraConfig(**LORA, target_modules=["embed_tokens", "lm_head", "q_proj"])),
    "modules trained in full": (llama, LoraConfig(**LORA, target_modules=["q_proj"], modules_to_save=["lm_head", "norm"])),
    "single tokens": (llama, LoraConfig(**LORA, target_modules=["q_proj"], trainable_token_indices=[3, 40])),
    "biases of adapters": (llama, LoraConfig(**LORA, target_modules=["q_proj"], lora_bias=True)),
    "biases of the base": (llama, LoraConfig(**LORA, target_modules=["q_proj"], bias="lora_only")),
    "fused experts": (qwen, LoraConfig(**LORA, target_modules=["q_proj"], target_parameters=EXPERTS)),
    "experts in a list on disk": (mixtral, LoraConfig(**LORA, target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"])),
    "transposed layers": (gpt2, LoraConfig(**LORA, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)),
    "another tuner": (llama, LoHaConfig(r=4, alpha=4, target_modules=["q_proj", "v_proj"])),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", HEALTHY)
def test_what_peft_merged_is_found_merged_bit_for_bit(folders, name, dtype):
    report, held = judged(folders(*HEALTHY[name], dtype))
    assert {tensor.verdict for tensor in held.tensors} == {"merged"}, held.tensors
    assert held.exact == len(held.tensors) > 0
    assert report.findings == ()


def test_pieces_are_merged_as_the_whole_is(folders, monkeypatch):
    monkeypatch.setattr("peft_inspect.structure.merged.judging._PIECE", 100)
    for name in ("DoRA", "embeddings and the head", "single tokens", "fused experts"):
        _, held = judged(folders(*HEALTHY[name]))
        assert held.exact == len(held.tensors) > 0, name


def changed(folder, change):
    """Rewrite the merged checkpoint by name, tensor and that of the base."""
    base, merged = (load_file(folder / which / "model.safetensors") for which in ("base", "merged"))
    new = {name: change(name, value, base[name]) for name, value in merged.items()}
    save_file({name: value for name, value in new.items() if value is not None}, folder / "merged/model.safetensors", {"format": "pt"})
    return folder


FAULTS = {
    "not applied at all": (lambda name, merged, base: base, "are those of the base: the adapter was not applied", {"not applied"}),
    "some layers left out": (
        lambda name, merged, base: base if "layers.1." in name else merged,
        r"2 of 6 tensors (layers 1), model.layers.1.self_attn.q_proj.weight for one, are those of the base",
        {"merged", "not applied"},
    ),
    "merged twice": (
        lambda name, merged, base: (base.float() + 2 * (merged.float() - base.float())).to(merged.dtype),
        "have the adapter in them twice",
        {"twice"},
    ),
    "another scaling": (
        lambda name, merged, base: (base.float() + 3.5 * (merged.float() - base.float())).to(merged.dtype),
        "another scaling, 3.5",
        {"scaled"},
    ),
    "another adapter": (
        lambda name, merged, base: (base.float() + torch.randn_like(base.float()) * 0.02).to(merged.dtype),
        "hold neither the base nor the base with this adapter",
        {"other"},
    ),
    "tensors that are gone": (
        lambda name, merged, base: None if "layers.2.self_attn.q" in name and "weight" in name else merged,
        "are not there",
        {"merged", "absent"},
    ),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_scripts_leave_behind_is_named(folders, fault, dtype):
    change, said, verdicts = FAULTS[fault]
    config = LoraConfig(**LORA, target_modules=["q_proj", "v_proj"])
    report, held = judged(changed(folders(llama, config, dtype), change))
    (found,) = report.findings
    assert (found.code, found.severity.value) == ("PI408", "error")
    assert said in found.message.replace("3.49", "3.5").replace("3.501", "3.5")
    assert {tensor.verdict for tensor in held.tensors} == verdicts


def test_a_merge_in_other_roundings_is_a_merge(folders):
    """On another device the last place may differ; a merge in float32, saved in bfloat16, is bit for bit one of the usual ones."""
    config = LoraConfig(**LORA, target_modules=["q_proj", "v_proj"])
    folder = folders(llama, config)
    nudged = changed(folder, lambda name, merged, base: torch.nextafter(merged, merged + 1) if "q_proj" in name else merged)
    report, held = judged(nudged)
    assert report.findings == ()
    assert held.exact == len(held.tensors) - 3
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(folder / "base", dtype=torch.float32), folder / "adapter")
    model.merge_and_unload().to(torch.bfloat16).save_pretrained(folder / "merged")
    report, held = judged(folder)
    assert report.findings == ()
    assert held.exact == len(held.tensors)


def test_shards_are_read_as_one(folders, tmp_path):
    folder = folders(llama, LoraConfig(**LORA, target_modules=["q_proj"]))
    tensors = load_file(folder / "merged/model.safetensors")
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in halves.items():
        save_file({name: tensors[name] for name in held}, folder / "merged" / file, {"format": "pt"})
    (folder / "merged/model.safetensors").unlink()
    index = {"weight_map": {name: file for file, held in halves.items() for name in held}}
    (folder / "merged/model.safetensors.index.json").write_text(json.dumps(index))
    report, held = judged(folder)
    assert (report.findings, held.exact) == ((), 3)
    (folder / "merged/model-00002-of-00002.safetensors").unlink()
    with pytest.raises(Exception, match=r"names the shard 'model-00002-of-00002.safetensors', which is not in"):
        judged(folder)


def test_what_could_not_be_judged_says_so(folders):
    folder = folders(llama, LoraConfig(**LORA, target_modules=["q_proj"]))
    tensors = load_file(folder / "base/model.safetensors")
    del tensors["model.layers.0.self_attn.q_proj.weight"]
    save_file(tensors, folder / "base/model.safetensors", {"format": "pt"})
    report, _ = judged(folder)
    (found,) = report.findings
    assert (found.code, found.severity.value) == ("PI408", "note")
    assert "1 of 3 tensors" in found.message
    assert "the base has no tensor that becomes model.layers.0.self_attn.q_proj.weight" in found.message


def test_a_tensor_of_which_a_part_is_merged_is_another(folders, monkeypatch):
    monkeypatch.setattr("peft_inspect.structure.merged.judging._PIECE", 128)

    def half(name, merged, base):
        return torch.cat([merged[: len(merged) // 2], base[len(base) // 2 :]]) if "q_proj.weight" in name else merged

    report, held = judged(changed(folders(llama, LoraConfig(**LORA, target_modules=["q_proj"])), half))
    assert [found.code for found in report.findings] == ["PI408"]
    assert {tensor.verdict for tensor in held.tensors} == {"other"}


ROWS, WIDTH = 64000, 4096
MEASURED = """
import resource, sys
import peft, torch, transformers
from peft_inspect.inspection import inspect
from peft_inspect.records import Request

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = inspect(Request(model="merged", adapter="adapter", base="base"), "check")
print(report.adapter_files[0].merged.tensors[0].verdict, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_a_large_tensor_is_never_in_memory_as_a_whole(tmp_path):
    """The head of both checkpoints has half a gigabyte, of zeros that take no room on disk."""
    config = LlamaConfig(
        vocab_size=ROWS, hidden_size=WIDTH, intermediate_size=8, num_hidden_layers=1, num_attention_heads=32, dtype="bfloat16"
    )
    size = ROWS * WIDTH * 2
    header = json.dumps({"lm_head.weight": {"dtype": "BF16", "shape": [ROWS, WIDTH], "data_offsets": [0, size]}}).encode()
    for name in ("base", "merged"):
        config.save_pretrained(tmp_path / name)
        with (tmp_path / name / "model.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + size)
    key = "base_model.model.lm_head.lora_{}.weight"
    (tmp_path / "adapter").mkdir()
    tensors = {key.format("A"): torch.randn(2, WIDTH) * 0.01, key.format("B"): torch.randn(ROWS, 2) * 0.01}
    save_file(tensors, tmp_path / "adapter/adapter_model.safetensors")
    fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["lm_head"], "base_model_name_or_path": "base"}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(fields))
    ran = subprocess.run([sys.executable, "-c", MEASURED], cwd=tmp_path, capture_output=True, text=True, check=True)
    verdict, grown = ran.stdout.rsplit(maxsplit=1)
    assert verdict == "not applied"
    assert int(grown) < size
