"""What a weightless run says is connected to the loss is what a run on real numbers connects."""

import pytest

from peft_inspect.api import inspect
from peft_inspect.records import Request

TYPES = [
    "bart",
    "beit",
    "bert",
    "big_bird",
    "blip",
    "clip",
    "convnext",
    "deberta-v2",
    "deepseek_v3",
    "funnel",
    "gemma3",
    "gemma4",
    "gpt2",
    "gpt_oss",
    "jamba",
    "llama",
    "longformer",
    "mixtral",
    "owlvit",
    "segformer",
    "siglip_vision_model",
    "t5",
    "vit",
    "wav2vec2",
    "wavlm",
    "xlnet",
]
EVERY_LAYER = {name: {"layerdrop": 0.0} for name in ("wav2vec2", "wavlm")}  # else a random one is left out of each run


def connected(model_type, weights):
    request = Request(
        model=f"arch:{model_type}",
        lora_fields={"target_modules": "all-linear"},
        config_fields=EVERY_LAYER.get(model_type, {}),
        weights=weights,
        reduce=True,
    )
    trace = inspect(request, "gradcheck", verify=False).trace
    return {row.path: row.arrived for row in trace.gradients}


@pytest.mark.filterwarnings("ignore")  # what each architecture warns of is not the subject
@pytest.mark.parametrize("model_type", TYPES)
def test_real_and_weightless_runs_agree_on_every_gradient(model_type):
    real = connected(model_type, "random")
    assert real
    assert connected(model_type, "none") == real
