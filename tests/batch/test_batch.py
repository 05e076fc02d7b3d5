"""A batch is made from signature and config alone, and fits the model it is made for."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    ResNetConfig,
    ResNetForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
)

import peft_inspect
import peft_inspect.batch as batch_room
from peft_inspect.batch import make_batch, modalities
from peft_inspect.batch.receiver import passed_down
from peft_inspect.records import InspectionError, Subject

TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
LLAMA = {**TEXT, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
IGNORE = -100


def made(model: nn.Module):
    batch, info = make_batch(Subject(model=model, source="test"))
    return batch, info, model(**batch)


def ran(model: nn.Module, batch: dict[str, object]) -> set[str]:
    """Paths of the modules that a forward of this batch runs."""
    seen: set[str] = set()
    handles = [module.register_forward_hook(lambda *_, path=path: seen.add(path)) for path, module in model.named_modules()]
    model(**batch)
    for handle in handles:
        handle.remove()
    return seen


def test_text_has_ordinary_ids_and_labels_for_the_models_own_loss():
    batch, info, output = made(LlamaForCausalLM(LlamaConfig(**LLAMA)))
    assert batch["input_ids"].shape == (1, 16)
    assert not {1, 2} & set(batch["input_ids"].flatten().tolist())
    assert int(batch["input_ids"].max()) < 64
    assert (info.labels, info.supervised, info.made_by) == (16, 16, "signature and config")
    assert info.inputs["input_ids"] == "int64[1, 16]"
    assert output.loss.requires_grad


def test_the_same_model_gets_the_same_batch():
    model = LlamaForCausalLM(LlamaConfig(**LLAMA))
    assert torch.equal(made(model)[0]["input_ids"], made(model)[0]["input_ids"])


def test_an_encoder_decoder_gets_labels_that_make_its_decoder_ids():
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    config = BartConfig(
        **sizes, encoder_attention_heads=2, decoder_attention_heads=2, vocab_size=64, pad_token_id=1, max_position_embeddings=32
    )
    batch, _, output = made(BartForConditionalGeneration(config))
    assert "labels" in batch
    assert "decoder_input_ids" not in batch
    assert output.loss.requires_grad


@pytest.mark.parametrize(
    ("problem", "labels", "shape", "dtype"),
    [
        ("single_label_classification", 3, (1,), torch.int64),
        ("multi_label_classification", 3, (1, 3), torch.float32),
        ("regression", 1, (1,), torch.float32),
        (None, 1, (1,), torch.float32),
    ],
)
def test_class_labels_follow_the_problem_type(problem, labels, shape, dtype):
    batch, _, output = made(BertForSequenceClassification(BertConfig(**TEXT, num_labels=labels, problem_type=problem)))
    assert (tuple(batch["labels"].shape), batch["labels"].dtype) == (shape, dtype)
    assert output.loss.requires_grad


def test_labels_per_token_and_answer_spans():
    assert made(BertForTokenClassification(BertConfig(**TEXT, num_labels=5)))[2].loss.requires_grad
    assert made(BertForQuestionAnswering(BertConfig(**TEXT)))[2].loss.requires_grad


def test_a_waveform_comes_with_its_mask_and_a_transcript():
    sizes = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (5, 8), "num_feat_extract_layers": 2}
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**TEXT, **sizes, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2))
    batch, _, output = made(model)
    assert batch["input_values"].shape == batch["attention_mask"].shape
    assert torch.isfinite(output.loss)


def test_batch_norm_gets_two_samples_and_keeps_its_statistics():
    model = ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])).train()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    batch, _ = make_batch(Subject(model=model, source="test"))
    assert batch["pixel_values"].shape[0] == 2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model(**batch).loss.requires_grad


def test_every_image_feature_has_its_placeholder_and_no_label():
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=LlamaConfig(**LLAMA), image_token_index=60))
    batch, info, output = made(model)
    placeholders = batch["input_ids"] == 60
    assert int(placeholders.sum()) == 4
    assert torch.equal(batch["labels"] == IGNORE, placeholders)
    assert info.supervised == info.labels - 4
    assert output.loss.requires_grad
    assert any("vision_tower" in path for path in ran(model, batch))


def qwen2_vl() -> PreTrainedModel:
    vision = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 16, "mlp_ratio": 1, "patch_size": 4}
    text = {**LLAMA, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}
    tokens = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **tokens))


def test_images_and_videos_on_a_grid_come_with_it():
    model = qwen2_vl()
    batch, _, output = made(model)
    for pixels, grid in (("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw")):
        assert batch[pixels].shape == (int(batch[grid].prod()), 3 * 2 * 4 * 4)
    assert set(batch["mm_token_type_ids"].flatten().tolist()) == {0, 1, 2}
    assert output.loss.requires_grad


def test_sound_is_as_long_as_its_tower_wants_and_fills_its_placeholders():
    audio = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "num_mel_bins": 8}
    config = Qwen2AudioConfig(audio_config={**audio, "max_source_positions": 8}, text_config=LLAMA, audio_token_index=60)
    model = Qwen2AudioForConditionalGeneration(config)
    batch, _, output = made(model)
    assert batch["input_features"].shape == (1, 8, 16)
    assert int((batch["input_ids"] == 60).sum()) == 4
    assert any("audio_tower" in path for path in ran(model, batch))
    assert output.loss.requires_grad


def test_the_users_batch_is_used_and_its_supervision_counted():
    model = LlamaForCausalLM(LlamaConfig(**LLAMA))
    labels = torch.tensor([[IGNORE, IGNORE, 3]])
    batch, info = make_batch(Subject(model=model, source="test", batch={"input_ids": torch.tensor([[3, 4, 5]]), "labels": labels}))
    assert batch["labels"] is labels
    assert (info.made_by, info.labels, info.supervised) == ("user", 3, 1)
    assert "position_ids" in info.accepted


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # what PEFT asks
def test_every_pass_and_every_trial_of_a_fix_gets_the_one_batch(monkeypatch):
    made_so_far = []
    monkeypatch.setattr(batch_room, "_make", lambda plan, make=batch_room._make: made_so_far.append(plan) or make(plan))
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**LLAMA)), LoraConfig(target_modules=["q_proj"]))
    model.requires_grad_(False)
    findings = peft_inspect.check(model).findings
    assert any(finding.fix_verified for finding in findings)
    assert len(made_so_far) == 1


def test_a_failed_attempt_leaves_nothing_behind():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = BertModel(BertConfig(**TEXT))

        def forward(self, input_ids, labels):
            alive.append(any(state() is not None for state in states))
            states.append(weakref.ref(hidden := self.encoder(input_ids).last_hidden_state))
            return hidden + hidden[:, :3]

    states, alive = [], []
    gc.disable()
    try:
        make_batch(Subject(model=Fails(), source="test"))
    finally:
        gc.enable()
    assert len(alive) > 1
    assert not any(alive)


class Classifier(nn.Module):
    """A user's own module: its names are not those of transformers, its labels are classes."""

    def __init__(self):
        super().__init__()
        self.encoder = BertModel(BertConfig(**TEXT))
        self.head = nn.Linear(16, 3)

    def forward(self, text_ids, mask, emotion_labels):
        pooled = self.encoder(text_ids, attention_mask=mask).last_hidden_state.mean(1)
        return {"loss": nn.functional.cross_entropy(self.head(pooled), emotion_labels)}


class Regressor(Classifier):
    """Its labels are values."""

    def forward(self, input_ids, y):
        pooled = self.encoder(input_ids).last_hidden_state.mean(1)
        return nn.functional.binary_cross_entropy_with_logits(self.head(pooled)[:, 0], y)


class PassesOn(nn.Module):
    """Takes whatever its model takes."""

    def __init__(self):
        super().__init__()
        self.lm = LlamaForCausalLM(LlamaConfig(**LLAMA))

    def forward(self, **inputs):
        return self.lm(**inputs)


class Tabular(PassesOn):
    """Requires what nobody can guess."""

    def forward(self, table, input_ids):
        return self.lm(input_ids=input_ids)


def test_a_forward_of_the_users_own_gets_its_own_names_and_labels_of_its_kind():
    batch, info, output = made(Classifier())
    assert set(batch) == {"text_ids", "mask", "emotion_labels"}
    assert batch["emotion_labels"].shape == (1,)
    assert info.supervised == 1
    assert output["loss"].requires_grad
    assert made(Regressor())[0]["y"].is_floating_point()


def test_a_forward_that_passes_everything_on_is_looked_through():
    assert made(PassesOn())[2].loss.requires_grad


def test_an_input_that_nobody_can_make_is_named():
    with pytest.raises(InspectionError, match=r"requires table\. Pass --batch FILE"):
        make_batch(Subject(model=Tabular(), source="test"))


def test_the_notes_say_what_the_batch_exercises_and_what_not():
    assert made(LlamaForCausalLM(LlamaConfig(**LLAMA)))[1].notes[0] == "exercises text; 1 sample without padding"
    notes = made(qwen2_vl())[1].notes
    assert notes[0].startswith("exercises text, images, videos (4 image placeholders, 4 video placeholders)")


class SeesDepth(nn.Module):
    """Takes an input that no modality brings."""

    def __init__(self):
        super().__init__()
        self.projector, self.lm = nn.Linear(4, 16), LlamaForCausalLM(LlamaConfig(**LLAMA))

    def forward(self, input_ids, depth_values):
        embeddings = self.lm.get_input_embeddings()(input_ids)
        return self.lm(inputs_embeds=torch.cat([self.projector(depth_values), embeddings], dim=1))


DEPTH = """
from peft_inspect.batch.modalities.modality import Modality

MODALITIES = (Modality("depth", "depth maps", "depth_values", lambda plan: [{"depth_values": plan.floats(plan.size, 3, 4)}]),)
"""


@pytest.fixture
def depth(tmp_path, monkeypatch):
    """One more file among the modalities."""
    (tmp_path / "depth.py").write_text(DEPTH, encoding="utf-8")
    monkeypatch.setattr(modalities, "__path__", [*modalities.__path__, str(tmp_path)])
    modalities.all_modalities.cache_clear()
    yield
    modalities.all_modalities.cache_clear()
    sys.modules.pop(f"{modalities.__name__}.depth", None)


@pytest.mark.usefixtures("depth")
def test_a_modality_is_one_file():
    batch, info, _ = made(SeesDepth())
    assert batch["depth_values"].shape == (1, 3, 4)
    assert info.notes[0] == "exercises text, depth maps; 1 sample without padding"


def frames_as_images():
    from transformers import XCLIPVisionConfig, XCLIPVisionModel

    return XCLIPVisionModel(
        XCLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4, mit_hidden_size=16
        )
    )


def questions_in_the_text():
    from transformers import SplinterConfig, SplinterForPreTraining

    return SplinterForPreTraining(SplinterConfig(**TEXT))


def adapters_per_language():
    from transformers import XmodConfig, XmodModel

    return XmodModel(XmodConfig(**TEXT, languages=("en_XX", "de_DE")))


def one_encoder_of_several_kinds():
    from transformers import SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel

    ears = Wav2Vec2Config(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, conv_dim=(16, 16), conv_stride=(5, 4),
        conv_kernel=(10, 8), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    mouth = BartConfig(
        d_model=16,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        vocab_size=64,
        is_decoder=True,
        add_cross_attention=True,
    )
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(ears, mouth)
    config.decoder_start_token_id, config.pad_token_id = 2, 1
    return SpeechEncoderDecoderModel(config)


@pytest.mark.parametrize("build", [frames_as_images, questions_in_the_text, adapters_per_language, one_encoder_of_several_kinds])
def test_a_trial_decides_what_signature_and_config_leave_open(build):
    model = build()
    made(model)


def test_inputs_that_a_forward_only_passes_down_are_known():
    class Tower(nn.Module):
        def forward(self, pixel_values, **options):
            return pixel_values

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.tower = Tower()

        def forward(self, inputs_embeds, **kwargs):
            return self.tower(**kwargs)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.other = Inner(), Tower()

        def forward(self, input_ids, **kwargs):
            return self.inner(input_ids, **kwargs) + self.other(input_ids)

    assert set(passed_down(Outer())) == {"inputs_embeds", "pixel_values"}


def test_pixels_go_into_a_model_that_only_passes_them_down():
    from transformers import AutoConfig
    from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaForBlockDiffusion

    from peft_inspect.load.model.reduce import reduced

    config, _ = reduced(
        AutoConfig.for_model("diffusion_gemma", text_config={"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16})
    )
    model = DiffusionGemmaForBlockDiffusion(config)
    batch, _ = make_batch(Subject(model=model, source="test"))
    assert "pixel_values" in batch
