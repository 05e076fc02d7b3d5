"""Fields of trainers' files that decide ranks, initialisation, freezing, the adapter that is resumed, or which part gets adapters."""

from __future__ import annotations

import json

import pytest
import torch
from peft.tuners.lora import LoraLayer, ParamWrapper
from safetensors.torch import save_file

from peft_inspect.load.trainers import DIALECTS
from peft_inspect.records import InspectionError

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 64}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4, **SIZES}
PHI3 = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "num_hidden_layers": 2, "pad_token_id": 0, **SIZES}
MIXTRAL = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_hidden_layers": 2, "num_local_experts": 4, **SIZES}
MLLAMA = {
    "model_type": "mllama",
    "architectures": ["MllamaForConditionalGeneration"],
    "image_token_index": 60,
    "text_config": {"model_type": "mllama_text_model", "num_hidden_layers": 3, "cross_attention_layers": [1], "pad_token_id": 0, **SIZES},
    "vision_config": {
        "model_type": "mllama_vision_model",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
        "vision_output_dim": 32,
        "intermediate_layers_indices": [0],
    },
}
QWEN3_VL = {
    "model_type": "qwen3_vl",
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "image_token_id": 60,
    "video_token_id": 61,
    "vision_start_token_id": 62,
    "vision_end_token_id": 63,
    "text_config": {"model_type": "qwen3_vl_text", "num_hidden_layers": 2, "head_dim": 8, **SIZES},
    "vision_config": {
        "model_type": "qwen3_vl",
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 16,
        "patch_size": 14,
        "deepstack_visual_indexes": [0],
    },
}
AXOLOTL = "base_model: {model}\nadapter: lora\nlora_r: 4\nlora_alpha: 8\nsequence_len: 8\n"
FACTORY = "model_name_or_path: {model}\nfinetuning_type: lora\nlora_rank: 4\n"
TORCHTUNE = (
    "model: {{_component_: torchtune.models.{family}, lora_attn_modules: [q_proj, v_proj], lora_rank: 4, lora_alpha: 8{more}}}\n"
    "checkpointer: {{checkpoint_dir: {model}}}\n"
)


@pytest.fixture
def wrapped(load, tmp_path):
    """`wrapped(config, text)`: the subject that a trainer's file makes of a tiny model."""

    def run(config, text, **request):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        file = tmp_path / "train.yaml"
        file.write_text(text.replace("{model}", str(folder)).replace("{{", "{").replace("}}", "}"))
        return load(lora=str(file), **request)

    return run


def adapted(subject):
    return sorted(path for path, module in subject.model.get_base_model().named_modules() if isinstance(module, LoraLayer))


def warnings(subject):
    return [note for note in subject.notes if note.startswith("warning: ")]


@pytest.fixture
def adapter(tmp_path):
    """The folder of an adapter of rank 2 on k_proj of the tiny Llama."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "x",
        "r": 2,
        "lora_alpha": 2,
        "target_modules": ["k_proj"],
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    key = "base_model.model.model.layers.{}.self_attn.k_proj.lora_{}.weight"
    tensors = {key.format(layer, side): torch.ones(shape) for layer in range(4) for side, shape in (("A", (2, 16)), ("B", (16, 2)))}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


RESUMED = {
    "axolotl": AXOLOTL + "lora_target_linear: true\nlora_model_dir: {adapter}\n",
    "LLaMA-Factory": FACTORY + "adapter_name_or_path: {adapter}\n",
    "LLaMA-Factory v1": "model: {model}\nmodel_class: llm\npeft_config: {{name: lora, adapter_name_or_path: {adapter}}}\n",
    "ms-swift": "model: {model}\ntuner_type: lora\nadapters: [{adapter}]\n",
    "verl": "model: {{path: {model}, lora_rank: 4, lora_adapter_path: {adapter}}}\n",
}


@pytest.mark.parametrize("trainer", RESUMED)
def test_the_adapter_that_is_resumed_decides(wrapped, adapter, trainer):
    subject = wrapped(LLAMA, RESUMED[trainer].replace("{adapter}", str(adapter)))
    assert {path.rpartition(".")[2] for path in adapted(subject)} == {"k_proj"}
    assert subject.requested["r"] == 2
    assert any(parameter.requires_grad for name, parameter in subject.model.named_parameters() if "lora_" in name)
    assert any("is resumed, and its own config decides" in note for note in subject.notes)


def test_an_adapter_that_is_resumed_and_not_there_is_asked_for(wrapped, adapter):
    text = AXOLOTL + "lora_target_linear: true\nlora_model_dir: /nowhere/adapter\n"
    with pytest.raises(InspectionError, match=r"resumes the adapter /nowhere/adapter, .*Give its folder with --adapter DIR"):
        wrapped(LLAMA, text)
    assert adapted(wrapped(LLAMA, text, adapter=str(adapter)))


def test_axolotl_passes_rank_and_alpha_patterns_on(wrapped):
    text = AXOLOTL + "lora_target_modules: [q_proj, v_proj]\nlora_rank_pattern: {{q_proj: 2}}\nlora_alpha_pattern: {{q_proj: 2}}\n"
    ranks = {m.r["default"] for p, m in wrapped(LLAMA, text).model.named_modules() if isinstance(m, LoraLayer) and p.endswith("q_proj")}
    assert ranks == {2}


def test_axolotl_takes_the_names_listed_beside_all_linear_layers(wrapped):
    subject = wrapped(LLAMA, AXOLOTL + "lora_target_linear: true\nlora_target_modules: [embed_tokens]\n")
    assert "model.embed_tokens" in adapted(subject)
    assert "lm_head" not in adapted(subject)


def test_axolotl_freezes_multimodal_modules_with_their_adapters(wrapped):
    model = wrapped(QWEN3_VL, AXOLOTL + "lora_target_linear: true\nfreeze_mm_modules: true\n").model
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert not any(".visual." in name for name in trained)
    assert any(".visual." in name and "lora_" in name for name, _ in model.named_parameters())


def test_axolotl_leaves_dropout_out_for_fused_experts(wrapped):
    subject = wrapped(MIXTRAL, AXOLOTL + "lora_dropout: 0.05\nlora_target_modules: [q_proj, w1, w2, w3]\n")
    dropouts = {type(m): m.lora_dropout["default"] for _, m in subject.model.named_modules() if isinstance(m, LoraLayer)}
    assert isinstance(dropouts[ParamWrapper], torch.nn.Identity)
    assert {type(dropout) for kind, dropout in dropouts.items() if kind is not ParamWrapper} == {torch.nn.Dropout}
    assert subject.model.peft_config["default"].lora_dropout == 0.05


def test_axolotl_initialises_as_loftq_and_says_so(wrapped):
    fields = wrapped(LLAMA, AXOLOTL + "lora_target_linear: true\npeft: {{loftq_config: {{loftq_bits: 4}}}}\n").requested
    assert (fields["init_lora_weights"], fields["loftq_config"]["loftq_bits"]) == ("loftq", 4)


def test_llama_factory_leaves_the_mergers_of_deepstack_out(wrapped):
    paths = adapted(wrapped(QWEN3_VL, FACTORY + "lora_target: all\n"))
    assert paths
    assert all(path.startswith("model.language_model.") for path in paths)
    paths = adapted(wrapped(QWEN3_VL, FACTORY + "lora_target: all\nfreeze_vision_tower: false\n"))
    assert any("deepstack_merger_list" in path for path in paths)
    assert not any("visual.merger" in path for path in paths)


def test_llama_factory_adapts_the_expanded_blocks_alone(wrapped):
    paths = adapted(wrapped(LLAMA, FACTORY + "lora_target: q_proj\nuse_llama_pro: true\nfreeze_trainable_layers: 2\n"))
    assert paths == ["model.layers.1.self_attn.q_proj", "model.layers.3.self_attn.q_proj"]
    with pytest.raises(InspectionError, match=r"use_llama_pro: LLaMA-Factory refuses a model of 4 layers with freeze_trainable_layers=3"):
        wrapped(LLAMA, FACTORY + "use_llama_pro: true\nfreeze_trainable_layers: 3\n")


@pytest.mark.parametrize("field", ["resize_vocab: true", "add_tokens: <a>,<b>", "add_special_tokens: <a>"])
def test_llama_factory_trains_the_embeddings_of_a_larger_vocabulary(wrapped, field):
    model = wrapped(LLAMA, FACTORY + f"lora_target: q_proj\n{field}\n").model
    assert set(model.peft_config["default"].modules_to_save) == {"embed_tokens", "lm_head"}
    model = wrapped(LLAMA, FACTORY + f"lora_target: q_proj\n{field}\nadditional_target: norm\n").model
    assert set(model.peft_config["default"].modules_to_save) == {"norm"}


def test_llama_factory_begins_as_pissa(wrapped):
    assert wrapped(LLAMA, FACTORY + "pissa_init: true\n").requested["init_lora_weights"] == "pissa_niter_16"
    assert wrapped(LLAMA, FACTORY + "pissa_init: true\npissa_iter: -1\n").requested["init_lora_weights"] == "pissa"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", {"vision_model.transformer", "vision_model.global_transformer", "cross_attn"}),
        (", decoder_trainable: lora, encoder_trainable: frozen, fusion_trainable: frozen", {"self_attn of the decoder"}),
        (", encoder_trainable: frozen", {"vision_model.global_transformer", "cross_attn"}),
        (", fusion_trainable: frozen", {"vision_model.transformer"}),
        (
            ", fusion_trainable: lora, encoder_trainable: frozen, apply_lora_to_output: true",
            {"vision_model.global_transformer", "cross_attn", "projector"},
        ),
    ],
)
def test_torchtune_adapts_the_parts_that_are_to_train(wrapped, more, expected):
    text = TORCHTUNE.replace("{family}", "llama3_2_vision.lora_llama3_2_vision_11b").replace("{more}", more)
    assert {_part(path) for path in adapted(wrapped(MLLAMA, text))} == expected


def _part(path):
    marks = ("vision_model.global_transformer", "vision_model.transformer", "cross_attn", "projector")
    return next((mark for mark in marks if mark in path), "self_attn of the decoder")


def test_torchtune_refuses_full_training_beside_lora(wrapped):
    text = TORCHTUNE.replace("{family}", "llama3_2_vision.lora_llama3_2_vision_11b").replace("{more}", ", encoder_trainable: full")
    with pytest.raises(
        InspectionError, match=r"is a config of torchtune with encoder_trainable: full, which torchtune refuses beside LoRA"
    ):
        wrapped(MLLAMA, text)


def test_torchtunes_own_layers_are_those_that_transformers_fuses(wrapped):
    text = TORCHTUNE.replace("{family}", "phi3.lora_phi3_mini").replace("{more}", ", apply_lora_to_mlp: true")
    subject = wrapped(PHI3, text)
    assert {path.rpartition(".")[2] for path in adapted(subject)} == {"qkv_proj", "gate_up_proj", "down_proj"}
    assert warnings(subject) == ["warning: torchtune adapts query and value alone; here qkv_proj holds key as well, and is adapted whole"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (AXOLOTL + "lora_target_linear: true\nrelora: true\n", "warning: relora is not followed: the trainer merges the adapter"),
        (AXOLOTL + "lora_target_linear: true\nlora_brand_new: 3\n", "warning: lora_brand_new is not followed: what axolotl makes of it"),
        (AXOLOTL + "lora_target_linear: true\nplugins: [my.Plugin]\n", "warning: the plugin my.Plugin is not followed"),
        (FACTORY + "use_unsloth: true\n", "warning: use_unsloth is not followed: unsloth wraps the model"),
        (
            "model: {model}\ntuner_type: lora\nexpert_model_parallel_size: 2\n",
            "warning: expert_model_parallel_size is not followed: Megatron",
        ),
    ],
)
def test_a_field_that_matters_and_is_not_followed_is_a_warning_by_name(wrapped, text, said):
    assert any(note.startswith(said) for note in warnings(wrapped(LLAMA, text)))


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.trainer)
def test_no_field_that_is_followed_or_warned_of_is_said_not_to_matter(dialect):
    from peft_inspect.load.trainers.reader import Reader

    for name in (*dialect.decides, *dialect.warned):
        data = 1
        for part in reversed(name.split(".")):
            data = {part: data}
        assert not any("do not matter" in note for note in Reader(data, "file", dialect).notes()), name


@pytest.mark.parametrize(
    ("text", "trainer"),
    [
        ("[model_arguments]\nx = 1\n[network_arguments]\nnetwork_dim = 4\nnetwork_module = 'networks.lora'\n", "kohya's sd-scripts"),
        ("model: {model_name: x}\ntraining: {use_peft: true}\npeft: {lora_r: 8}\n", "oumi"),
        ("config: {process: [{type: sd_trainer, network: {linear: 16}}]}\n", "ai-toolkit"),
        ("model_id_or_path: x\nlora: {rank: 64}\n", "mistral-finetune"),
    ],
)
def test_a_trainer_that_is_not_followed_is_named(load, tmp_path, text, trainer):
    file = tmp_path / f"train.{'toml' if text.startswith('[') else 'yaml'}"
    file.write_text(text)
    with pytest.raises(
        InspectionError, match=rf"looks like a config of {trainer} .*, whose way to read it is not followed here: give PEFT's own"
    ):
        load("arch:llama", lora=str(file))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("checkpoint_dir: x\nout_dir: y\ntrain: {epochs: 1}\n", "a config of LitGPT without any lora_ field"),
        (
            "recipe: x\nstep_scheduler: {num_epochs: 1}\nmodel: {pretrained_model_name_or_path: x}\n",
            "a config of NeMo Automodel without a peft",
        ),
        (
            "model: {pretrained_model_name_or_path: x}\npeft: {dim: 4, target_modules: [nowhere]}\n",
            "nothing in LlamaForCausalLM is what this file",
        ),
    ],
)
def test_files_that_adapt_nothing_say_so(wrapped, text, said):
    with pytest.raises(InspectionError, match=said):
        wrapped(LLAMA, text, model="arch:llama", reduce=True)


def test_of_two_that_could_be_meant_the_one_taken_is_named_with_its_reason(wrapped):
    subject = wrapped(LLAMA, FACTORY + "lora_target: q_proj\nuse_peft: true\n")
    assert any(
        "is read as LLaMA-Factory's, by finetuning_type, lora_target; it could have been one of TRL (by use_peft)" in n
        for n in subject.notes
    )


@pytest.mark.parametrize(
    "text",
    [
        "model_name_or_path: {model}\nadapter_name_or_path: saves/x\ntemplate: llama3\nexport_dir: out\n",
        "model: {model}\nmodel_class: llm\npeft_config: {{name: lora, adapter_name_or_path: saves/x, export_dir: out}}\n",
    ],
)
def test_files_for_merging_name_the_adapter_to_inspect(wrapped, text):
    with pytest.raises(
        InspectionError, match=r"for merging, which trains no LoRA: to inspect the adapter, name its folder as MODEL: saves/x"
    ):
        wrapped(LLAMA, text)


def test_fields_that_old_versions_of_peft_wrote_are_ignored_as_peft_does(load, tiny_llama, tmp_path):
    old = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "enable_lora": None, "merge_weights": False}
    (tmp_path / "lora.json").write_text(json.dumps(old))
    subject = load(str(tiny_llama), lora=str(tmp_path / "lora.json"))
    assert any("PEFT ignores fields that it does not know: enable_lora, merge_weights" in note for note in subject.notes)
    saved = {**old, "peft_type": "LORA", "base_model_name_or_path": "x", "inference_mode": False, "of_the_future": 1}
    (tmp_path / "lora.json").write_text(json.dumps(saved))
    assert any(
        "enable_lora, merge_weights, of_the_future" in note for note in load(str(tiny_llama), lora=str(tmp_path / "lora.json")).notes
    )
    (tmp_path / "lora.json").write_text(json.dumps({"r": 4, "target_moduls": ["q_proj"]}))
    with pytest.raises(InspectionError, match=r"LoraConfig has no field 'target_moduls'; the closest are 'target_modules'"):
        load(str(tiny_llama), lora=str(tmp_path / "lora.json"))
