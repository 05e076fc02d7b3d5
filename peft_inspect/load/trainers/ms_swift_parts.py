"""The parts of multimodal models as ms-swift knows them, by transformers' model type.

The registrations in swift/model/model_arch.py for classes of transformers, read in 4.6.0.dev0 (3602360a5, August 2026).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from peft_inspect.load.trainers.search import language_model, linear_paths

_Paths = tuple[str, ...]


@dataclass(frozen=True)
class Parts:
    """Paths of the parts of one model."""

    language: _Paths = ("model.language_model", "lm_head")
    aligner: _Paths = ("model.multi_modal_projector",)
    vision: _Paths = ("model.vision_tower",)
    notes: tuple[str, ...] = ()


_LLAVA = Parts()
_QWEN2_VL = Parts(aligner=("model.visual.merger",), vision=("model.visual",))
_GEMMA = Parts(aligner=("model.embed_vision", "model.embed_audio"), vision=("model.vision_tower", "model.audio_tower"))
_THINKER = ("thinker.model", "thinker.lm_head")
_PARTS = {
    **dict.fromkeys(("llava", "llava_next", "llava_next_video", "llava_onevision", "video_llava", "vipllava", "paligemma"), _LLAVA),
    **dict.fromkeys(("gemma3", "mistral3", "interns1", "internvl", "pixtral"), _LLAVA),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "glm4v", "glm4v_moe", "glm_ocr"), _QWEN2_VL),
    **dict.fromkeys(
        ("qwen3_vl", "qwen3_vl_moe"), Parts(aligner=("model.visual.merger", "model.visual.deepstack_merger_list"), vision=("model.visual",))
    ),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe"), Parts(("model.language_model",), ("model.visual.merger",), ("model.visual",))),
    **dict.fromkeys(("gemma3n", "gemma4"), _GEMMA),
    "mllama": Parts(vision=("model.vision_model",)),
    "llama4": Parts(("language_model",), ("multi_modal_projector",), ("vision_model",)),
    "qwen2_audio": Parts(("language_model",), ("multi_modal_projector",), ("audio_tower",)),
    "idefics3": Parts(("model.text_model",), ("model.connector",), ("model.vision_model",)),
    "florence2": Parts(("language_model",), (), ("vision_tower",)),
    "qwen2_5_omni": Parts(_THINKER, ("thinker.audio_tower.proj", "thinker.visual.merger"), ("thinker.audio_tower", "thinker.visual")),
    "qwen3_omni_moe": Parts(
        _THINKER,
        ("thinker.audio_tower.proj1", "thinker.audio_tower.proj2", "thinker.visual.merger", "thinker.visual.merger_list"),
        ("thinker.audio_tower", "thinker.visual"),
    ),
}
_PROJECTORS = ("projector", "connector", "aligner", "merger", "resampler", "embed_vision", "embed_audio", "adapter")


def parts_of(model: Any) -> Parts | None:
    """The parts of a multimodal model, by their paths in this version of transformers; None for a model of one part."""
    known = _PARTS.get(getattr(model.config, "model_type", ""))
    return _moved(known, model) if known is not None else _by_structure(model)


def _moved(parts: Parts, model: Any) -> Parts:
    """The parts where this version of transformers holds them: some moved below `model`."""
    paths = [path for path, _ in model.named_modules()]

    def held(names: _Paths) -> _Paths:
        return tuple(next((path for path in paths if path == name or path.endswith(f".{name}")), name) for name in names)

    return replace(parts, language=held(parts.language), aligner=held(parts.aligner), vision=held(parts.vision))


def _by_structure(model: Any) -> Parts | None:
    """For types that swift's list does not have: what is beside the decoder, projectors by their names."""
    decoder = language_model(model)
    if decoder is None:
        return None
    above = decoder.rpartition(".")[0]
    holder = dict(model.named_modules())[above]
    beside = [f"{above}.{name}".strip(".") for name, _ in holder.named_children() if f"{above}.{name}".strip(".") != decoder]
    linear = linear_paths(model)
    beside = [path for path in beside if any(each == path or each.startswith(f"{path}.") for each in linear) and path != "lm_head"]
    if not beside:
        return None
    aligner = tuple(path for path in beside if any(name in path for name in _PROJECTORS))
    note = f"ms-swift's list of parts is not followed for {model.config.model_type}: {decoder} is taken for its language model"
    return Parts((decoder, "lm_head"), aligner, tuple(path for path in beside if path not in aligner), (note,))
