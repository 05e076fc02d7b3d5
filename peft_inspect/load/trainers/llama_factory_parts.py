"""The parts of multimodal models as LLaMA-Factory names them, by model type: texts that are looked for anywhere in a path.

The registrations in llamafactory/model/model_utils/visual.py, read in 0.9.6.dev0 (ff6d4d12e, August 2026).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_Texts = tuple[str, ...]


@dataclass(frozen=True)
class Parts:
    """The parts of one model type."""

    projector: _Texts = ("multi_modal_projector",)
    vision: _Texts = ("vision_tower",)
    language: _Texts = ("language_model", "lm_head")
    conflicts: _Texts = ()  # what no adapter fits on


_QWEN_VISION = ("visual.patch_embed", "visual.blocks")
_QWEN3_VISION = ("visual.pos_embed", *_QWEN_VISION, "visual.deepstack_merger_list")
_MERGER, _PATCHES = ("visual.merger",), ("patch_embed",)
_PLAIN = Parts()
_QWEN = Parts(_MERGER, _QWEN_VISION, conflicts=_PATCHES)
_QWEN3 = Parts(_MERGER, _QWEN3_VISION, conflicts=_PATCHES)
_QWEN35 = Parts(("model.visual.merger",), ("visual.pos_embed", *_QWEN_VISION), conflicts=_PATCHES)
_MODEL = ("model", "lm_head")

_PARTS = {
    "dots_ocr": Parts(("vision_tower.merger",), language=_MODEL, conflicts=("merger",)),
    "gemma3n": Parts(vision=("vision_tower", "audio_tower"), conflicts=("timm_model", "subsample_conv_projection")),
    "gemma4": Parts(("model.embed_vision", "model.embed_audio"), ("vision_tower", "audio_tower"), conflicts=("per_layer_projection_norm",)),
    "Keye": Parts(
        ("mlp_AR",), ("visual.vision_model.patch_embedding", "visual.vision_model.encoder"), language=_MODEL, conflicts=("patch_embedding",)
    ),
    "minicpmv": Parts(("resampler",), ("vpm",), ("llm",)),
    "minicpmv4_6": Parts(("model.merger",), ("model.vision_tower",), ("model.language_model", "lm_head")),
    "minicpmo": Parts(
        ("resampler",), ("vpm", "apm", "audio_avg_pooler", "audio_projection_layer", "tts"), ("llm",), ("audio_projection_layer",)
    ),
    "mistral3": Parts(("model.multi_modal_projector",)),
    "moss_vl": Parts(
        ("model.visual.merger", "model.separator_token"),
        ("model.visual.pos_embed", "model.visual.patch_embed", "model.visual.blocks"),
        ("model.language_model", "lm_head"),
        _PATCHES,
    ),
    "qwen2_audio": Parts(vision=("audio_tower",)),
    "qwen2_5_omni_thinker": Parts(("visual.merger", "audio_tower.proj"), (*_QWEN_VISION, "audio_tower"), _MODEL, _PATCHES),
    "qwen3_omni_moe_thinker": Parts(("visual.merger", "audio_tower.proj"), (*_QWEN3_VISION, "audio_tower"), conflicts=_PATCHES),
    **dict.fromkeys(("llama4", "mllama"), Parts(vision=("vision_model",))),
    **dict.fromkeys(("glm4v", "glm4v_moe", "glm_ocr", "qwen2_vl", "qwen2_5_vl"), _QWEN),
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe"), _QWEN3),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe"), _QWEN35),
    **dict.fromkeys(
        ("gemma3", "internvl", "interns1", "kimi_vl", "llava", "llava_next", "llava_next_video", "paligemma", "video_llava"), _PLAIN
    ),
}


def parts_of(model: Any) -> Parts | None:
    """The parts of a model; None for types that LLaMA-Factory takes as one whole, which it does with all that it does not know."""
    return _PARTS.get(getattr(model.config, "model_type", ""))
