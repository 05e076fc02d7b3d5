"""How a forward fails on a batch that does not fit leads to one that does."""

from __future__ import annotations

import pytest
import transformers
from transformers import (
    BltConfig,
    DiaDecoderConfig,
    FastSpeech2ConformerConfig,
    FastSpeech2ConformerModel,
    LxmertConfig,
    LxmertModel,
    Molmo2VisionConfig,
    Molmo2VisionModel,
    Sam3DETREncoderConfig,
    Sam3MaskDecoderConfig,
    SegGptConfig,
    SegGptModel,
    TimesFm2_5Config,
    TimesFm2_5ModelForPrediction,
    VibeVoiceAcousticTokenizerEncoderConfig,
    VibeVoiceAcousticTokenizerEncoderModel,
)
from transformers.models.blt.modeling_blt import BltLocalDecoder
from transformers.models.dia.modeling_dia import DiaDecoder
from transformers.models.idefics2.modeling_idefics2 import Idefics2PerceiverConfig, Idefics2PerceiverResampler
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import (
    Qwen3OmniMoeTalkerCodePredictorConfig,
    Qwen3OmniMoeTalkerCodePredictorModelForConditionalGeneration,
)
from transformers.models.sam3.modeling_sam3 import Sam3DetrEncoder, Sam3MaskDecoder

from peft_inspect.batch import make_batch
from peft_inspect.records import Subject

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def every_label():
    return FastSpeech2ConformerModel(
        FastSpeech2ConformerConfig(
            hidden_size=16, encoder_layers=1, decoder_layers=1, encoder_linear_units=16, decoder_linear_units=16, num_mel_bins=8,
            speech_decoder_postnet_units=8, duration_predictor_channels=8, energy_predictor_channels=8, pitch_predictor_channels=8,
        )
    )  # fmt: skip


def two_images_in_one():
    config = SegGptConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=(32, 16), patch_size=4, decoder_hidden_size=8,
        pretrain_image_size=16, merge_index=0, intermediate_hidden_state_indices=(0, 1),
    )  # fmt: skip
    return SegGptModel(config)


def a_patch_for_every_position():
    return Molmo2VisionModel(
        Molmo2VisionConfig(**SMALL, num_key_value_heads=2, head_dim=8, image_size=[56, 56], patch_size=14, num_position_embeddings=16)
    )


def a_chain_of_strides():
    return VibeVoiceAcousticTokenizerEncoderModel(
        VibeVoiceAcousticTokenizerEncoderConfig(hidden_size=8, num_filters=2, downsampling_ratios=(4, 8, 8), depths=(1, 1, 1, 1))
    )


def states_that_a_norm_weighs():
    return Idefics2PerceiverResampler(
        Idefics2PerceiverConfig(hidden_size=16, resampler_n_latents=2, resampler_depth=1, resampler_n_heads=2, resampler_head_dim=8,
                                num_key_value_heads=2)
    )  # fmt: skip


def inputs_that_no_error_names():
    return BltLocalDecoder(BltConfig(decoder_config={**SMALL, "hidden_size_global": 32}).decoder_config)


def lists_of_maps():
    return Sam3DetrEncoder(Sam3DETREncoderConfig(hidden_size=16, num_layers=1, num_attention_heads=2, intermediate_size=16))


def a_state_for_every_point():
    return Sam3MaskDecoder(Sam3MaskDecoderConfig(hidden_size=16, num_attention_heads=2, num_upsampling_stages=1))


def a_number():
    config = Qwen3OmniMoeTalkerCodePredictorConfig(**SMALL, num_key_value_heads=2, head_dim=8, vocab_size=32, num_code_groups=3)
    return Qwen3OmniMoeTalkerCodePredictorModelForConditionalGeneration(config)


def only_what_the_error_names():
    return LxmertModel(
        LxmertConfig(hidden_size=16, num_attention_heads=2, intermediate_size=16, l_layers=1, r_layers=1, x_layers=1, visual_feat_dim=8,
                     vocab_size=64)
    )  # fmt: skip


def several_codes_per_step():
    return DiaDecoder(
        DiaDecoderConfig(**SMALL, num_key_value_heads=2, head_dim=8, cross_num_attention_heads=2, cross_num_key_value_heads=2,
                         cross_head_dim=8, cross_hidden_size=16, vocab_size=32, num_channels=3, pad_token_id=0, eos_token_id=1,
                         bos_token_id=2)
    )  # fmt: skip


def series_of_their_own_length():
    return TimesFm2_5ModelForPrediction(
        TimesFm2_5Config(**SMALL, num_key_value_heads=2, head_dim=8, patch_length=4, context_length=16, horizon_length=8,
                         output_quantile_len=8)
    )  # fmt: skip


def an_encoder_of_fewer_tokens():
    """Its text has a vocabulary of its own, and the config speaks of the decoder's."""
    encoder = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 16}
    decoder = {**encoder, "cross_num_attention_heads": 2, "cross_num_key_value_heads": 2, "cross_hidden_size": 16}
    config = {"encoder_config": {**encoder, "vocab_size": 64}, "decoder_config": {**decoder, "vocab_size": 1028}}
    return transformers.DiaForConditionalGeneration(transformers.DiaConfig(**config))


def features_where_a_mask_says():
    """No token stands for an image: a mask over the text says where its features go."""
    text = {"layers": 1, "embed_dim": 16, "ffn_dim": 16, "attention_heads": 2, "vocab_size": 64}
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 28,
        "patch_size": 14,
    }
    return transformers.Kosmos2ForConditionalGeneration(transformers.Kosmos2Config(text_config=text, vision_config=vision))


def as_many_decoder_ids_as_text():
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 64}
    return transformers.T5ForSequenceClassification(transformers.T5Config(**sizes, decoder_start_token_id=0))


@pytest.mark.parametrize(
    "build",
    [
        every_label,
        two_images_in_one,
        a_patch_for_every_position,
        a_chain_of_strides,
        states_that_a_norm_weighs,
        inputs_that_no_error_names,
        lists_of_maps,
        a_state_for_every_point,
        a_number,
        only_what_the_error_names,
        several_codes_per_step,
        series_of_their_own_length,
        an_encoder_of_fewer_tokens,
        features_where_a_mask_says,
        as_many_decoder_ids_as_text,
    ],
)
def test_a_failure_leads_to_a_batch_that_fits(build):
    model = build().train()
    batch, _ = make_batch(Subject(model=model, source="test"))
    model(**batch)
