"""LLaMA-Factory: one YAML with `model_name_or_path`, `finetuning_type` and `lora_target`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft_inspect.load.trainers.recognised import Reader, Recognised, Settings, quantisation_note
from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS = {"lora_dropout": "lora_dropout", "use_rslora": "use_rslora", "use_dora": "use_dora"}

# Parts of a multimodal model, by the names that transformers gives them.
_PARTS = {
    "freeze_vision_tower": r"vision_tower|vision_model|vision_encoder|visual\.(patch_embed|blocks)|audio_tower|audio_encoder",
    "freeze_multi_modal_projector": r"multi_modal_projector|mm_projector|visual\.merger|connector|aligner",
    "freeze_language_model": r"language_model",
}


def read(data: Mapping[str, Any], where: str) -> Recognised | None:
    """A LLaMA-Factory config; None for any other."""
    if not {"finetuning_type", "lora_target", "lora_rank"} & data.keys():
        return None
    reader = Reader(data, where)
    if (kind := reader.take("finetuning_type", "lora")) != "lora":
        raise InspectionError(f"{where} is a config of LLaMA-Factory with finetuning_type: {kind}, which trains no LoRA")
    model = reader.text("model_name_or_path")
    rank = reader.whole("lora_rank", 8)
    targets = reader.names("lora_target") or ["all"]
    fields: dict[str, Any] = {
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": reader.take("lora_alpha", 2 * rank),
        "target_modules": "all-linear" if targets == ["all"] else targets,
        **reader.renamed(_FIELDS),
    }
    if (saved := reader.names("additional_target")) is not None:
        fields["modules_to_save"] = saved
    reader.take("use_reentrant_gc")
    settings = Settings(
        gradient_checkpointing=not reader.take("disable_gradient_checkpointing", False),
        # Its own checkpoint function makes the input of every block with trainable weights require a gradient, reentrant or not.
        checkpointing_kwargs={"use_reentrant": False},
        # It freezes a part by leaving it out of the targets.
        left_out=tuple(pattern for name, pattern in _PARTS.items() if reader.take(name, name != "freeze_language_model")),
    )
    notes = (*quantisation_note(reader), reader.note("LLaMA-Factory"))
    return Recognised(fields, model, settings, notes)
