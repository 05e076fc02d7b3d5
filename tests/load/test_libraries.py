"""Models of other libraries, where they are installed."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from peft_inspect.records import InspectionError

UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 8,
    "layers_per_block": 1,
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 8,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
VIT = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 3,
    "model_args": {"img_size": 32, "depth": 2},
    "pretrained_cfg": {"input_size": [3, 32, 32]},
}


def folder_with(path, config, name="config.json"):
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_text(json.dumps(config))
    return path


def test_a_denoiser_of_diffusers(load, tmp_path):
    pytest.importorskip("diffusers")
    folder = folder_with(tmp_path / "unet", UNET)
    subject = load(str(folder), lora_fields={"target_modules": "to_q,to_v"})
    assert type(subject.model.get_base_model()).__name__ == "UNet2DConditionModel"
    assert all(parameter.is_meta for parameter in subject.model.parameters())
    assert subject.notes == (f"{folder} is a UNet2DConditionModel of diffusers",)
    assert len(load(str(folder), weights="random", config_fields={"layers_per_block": 2}).model.down_blocks[0].resnets) == 2
    with pytest.raises(InspectionError, match=r"the config has no 'layer_per_block'; the closest is 'layers_per_block'"):
        load(str(folder), config_fields={"layer_per_block": 2})


TRANSFORMER = {"sample_size": 8, "patch_size": 2, "in_channels": 4, "num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2}


@pytest.mark.parametrize(
    "config",
    [
        UNET,
        {
            **UNET,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 80,
        },
        {**TRANSFORMER, "_class_name": "DiTTransformer2DModel"},
        {**TRANSFORMER, "_class_name": "PixArtTransformer2DModel", "cross_attention_dim": 16, "caption_channels": 12},
        {
            **TRANSFORMER,
            "_class_name": "SD3Transformer2DModel",
            "joint_attention_dim": 16,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 12,
            "pos_embed_max_size": 8,
        },
        {
            **TRANSFORMER,
            "_class_name": "FluxTransformer2DModel",
            "patch_size": 1,
            "num_single_layers": 1,
            "joint_attention_dim": 16,
            "pooled_projection_dim": 12,
            "axes_dims_rope": [4, 2, 2],
        },
    ],
)
def test_denoisers_of_diffusers_come_with_a_batch_that_they_take(load, tmp_path, config):
    pytest.importorskip("diffusers")
    subject = load(str(folder_with(tmp_path, config)), weights="random")
    assert subject.model(**subject.batch).sample.isfinite().all()
    assert subject.batch_by == "signature and config"
    own = tmp_path / "batch.json"
    own.write_text("{}")
    assert load(str(tmp_path), batch=str(own)).batch_by == "user"


def test_a_pipeline_of_diffusers_is_inspected_at_its_denoiser(load, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    pipeline = folder_with(tmp_path / "sd", {"_class_name": "X", "unet": ["diffusers", "UNet2DConditionModel"]}, "model_index.json")
    model = diffusers.UNet2DConditionModel.from_config(UNET)
    model.save_pretrained(pipeline / "unet")
    loaded = load(str(pipeline), weights="pretrained").model
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    folder_with(pipeline, {"_class_name": "X", "vae": ["diffusers", "AutoencoderKL"]}, "model_index.json")
    with pytest.raises(InspectionError, match=r"is a pipeline without a denoiser that could carry LoRA; its parts are vae"):
        load(str(pipeline))


def test_a_class_that_diffusers_does_not_have(load, tmp_path):
    pytest.importorskip("diffusers")
    with pytest.raises(InspectionError, match=r"has no model class 'UNet2DConditionalModel'; the closest"):
        load(str(folder_with(tmp_path, {"_class_name": "UNet2DConditionalModel"})))


def test_a_model_of_timm_with_a_batch_of_its_input_size(load, tmp_path):
    pytest.importorskip("timm")
    folder = folder_with(tmp_path / "vit", VIT)
    subject = load(str(folder), weights="random", lora_fields={"target_modules": "qkv"})
    assert subject.model(**subject.batch).shape == (2, 3)
    with pytest.raises(InspectionError, match=r"has no architecture 'vit_tinny_patch16_224'; the closest"):
        load(str(folder_with(tmp_path / "other", {**VIT, "architecture": "vit_tinny_patch16_224"})))


@pytest.mark.parametrize(("library", "config"), [("diffusers", UNET), ("timm", VIT)])
def test_a_library_that_is_not_installed_names_the_extra(load, tmp_path, monkeypatch, library, config):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InspectionError, match=rf"is a model of {library}, which is not installed: pip install 'peft-inspect\[{library}\]'"):
        load(str(folder_with(tmp_path, config)))


def test_a_sentence_transformer_is_inspected_at_its_transformer(load, tmp_path):
    """Its adapters live there; pooling and what follows have no weights to adapt."""
    config = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    folder = folder_with(tmp_path / "st", config)
    modules = [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "x.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    subject = load(str(folder), lora_fields={"target_modules": "query", "task_type": "FEATURE_EXTRACTION"})
    assert type(subject.model.get_base_model()).__name__ == "BertModel"
