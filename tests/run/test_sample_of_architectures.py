"""Forty model types at their default size, across all modalities: every tower runs, and no finding is untrue.

`docs/sweep.py` does this for every type that transformers knows.
"""

import pytest

from peft_inspect.api import inspect
from peft_inspect.records import Request

TYPES = {
    "text": "llama mixtral deepseek_v3 gpt_oss qwen3_moe gemma4_text jamba gpt2 olmo2 bert deberta-v2 longformer t5 bart",
    "vision": "vit swin convnext dinov2 beit segformer mobilevit videomae depth_anything owlvit",
    "audio": "wav2vec2 hubert whisper audio-spectrogram-transformer wavlm",
    "several": "clip siglip blip llava gemma3 qwen2_audio qwen2_vl qwen2_5_vl idefics3 paligemma voxtral",
}
TRUE_ERRORS = {  # looked at in docs/findings.md
    "jamba": {"PI201"},
    "siglip": {"PI201"},
    "wavlm": {"PI201"},
}


@pytest.mark.filterwarnings("ignore")  # what each architecture warns of is not the subject
@pytest.mark.parametrize("model_type", [name for names in TYPES.values() for name in names.split()])
def test_every_tower_runs_at_full_size_without_weights(model_type):
    request = Request(model=f"arch:{model_type}", lora_fields={"target_modules": "all-linear"})
    report = inspect(request, "gradcheck", verify=False)
    towers = {report.structure.tower_of(layer.path) for layer in report.structure.adapter_layers}
    assert {report.structure.tower_of(path) for path in report.trace.calls_of} == towers
    assert {finding.code for finding in report.at_or_above("error")} == TRUE_ERRORS.get(model_type, set())
    assert not [outcome for outcome in report.outcomes if outcome.status == "crashed"]
