"""Forty model types across all modalities: their forward and backward run at full size, and every tower with adapters runs."""

from __future__ import annotations

import pytest

from peft_inspect.api import inspect
from peft_inspect.records import Request, Trace

TYPES = {
    "decoders": ["llama", "gpt2", "gemma3_text", "mixtral", "gpt_oss", "qwen3_next", "falcon"],
    "encoders": ["bert", "deberta-v2", "modernbert", "longformer", "xlnet"],
    "encoder-decoders": ["t5", "bart", "marian"],
    "vision": ["vit", "swin", "dinov2", "convnext", "segformer", "yolos", "depth_anything"],
    "video": ["videomae", "timesformer"],
    "sound": ["wav2vec2-bert", "audio-spectrogram-transformer", "whisper", "speech_to_text", "hubert"],
    "several": ["clip", "blip-2", "llava", "qwen2_vl", "qwen2_audio", "gemma3", "smolvlm", "kosmos-2", "layoutlmv3", "pix2struct"],
    "series": ["patchtst"],
}
EVERY_LAYER = {name: {"layerdrop": 0.0} for name in ("wav2vec2-bert", "hubert")}  # else a random layer is left out of each run


def silent_towers(trace: Trace) -> set[str]:
    """Towers with adapters none of which was called."""
    with_adapters = {trace.structure.tower_of(layer.path) for layer in trace.structure.adapter_layers}
    return with_adapters - {trace.structure.tower_of(path) for path in trace.calls_of}


@pytest.mark.filterwarnings("ignore")  # what each architecture warns of is not the subject
@pytest.mark.parametrize("model_type", [model_type for types in TYPES.values() for model_type in types])
def test_every_tower_runs_and_is_trained(model_type):
    fields = {"target_modules": "all-linear"}
    request = Request(model=f"arch:{model_type}", lora_fields=fields, config_fields=EVERY_LAYER.get(model_type, {}))
    trace = inspect(request, "gradcheck", verify=False).trace
    assert trace is not None
    assert not silent_towers(trace)
    arrived = sum(row.arrived for row in trace.gradients)
    assert arrived >= 0.9 * len(trace.gradients)


def test_the_sample_has_forty_types():
    assert sum(len(types) for types in TYPES.values()) == 40
