"""OpenRLHF: its arguments in a file, `pretrain` or `model.model_name_or_path` with `lora_rank` or a `ds.lora` section.

Follows `Actor` of openrlhf/models/actor.py, `get_llm_for_sequence_regression` of openrlhf/models/model.py and the arguments of
openrlhf/cli/train_sft.py and train_ppo_ray.py, read in 0.11.0 (3c3be623, August 2026), with the flat names of the versions before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.recognised import Recognised, Settings, present

if TYPE_CHECKING:
    from peft_inspect.load.trainers.reader import Reader

_NAMES = {  # PEFT's field → its names here, newer ones first, and its default
    "r": (("ds.lora.rank", "lora_rank"), 0),
    "lora_alpha": (("ds.lora.alpha", "lora_alpha"), 16),
    "lora_dropout": (("ds.lora.dropout", "lora_dropout"), 0.0),
    "target_modules": (("ds.lora.target_modules", "target_modules"), "all-linear"),
}
_MODELS = ("model.model_name_or_path", "actor.model_name_or_path", "pretrain")
_CHECKPOINTING = ("model.gradient_checkpointing_enable", "actor.gradient_checkpointing_enable", "gradient_checkpointing")
_REENTRANT = ("model.gradient_checkpointing_reentrant", "actor.gradient_checkpointing_reentrant", "gradient_checkpointing_use_reentrant")
_FROZEN_VISION = ("actor.freeze_visual_encoder", "freeze_visual_encoder")


def _read(reader: Reader) -> Recognised:
    values = {field: _first(reader, names, default) for field, (names, default) in _NAMES.items()}
    if not values["r"]:
        raise reader.refusal("with a LoRA rank of 0, which trains no LoRA")
    names = next((name for name in _NAMES["target_modules"][0] if reader.has(name)), None)
    targets = values["target_modules"]
    values["target_modules"] = targets if isinstance(targets, str) else reader.names(names or "target_modules")
    frozen = ((r"^(?!.*(language_model|lm_head|lora_))", False),) if _first(reader, _FROZEN_VISION, False) else ()
    settings = Settings(
        gradient_checkpointing=bool(_first(reader, _CHECKPOINTING, False)),
        checkpointing_kwargs={"use_reentrant": bool(_first(reader, _REENTRANT, False))},
        input_gradients=True,
        trainable=frozen,
    )
    return Recognised(
        fields=present({"task_type": "CAUSAL_LM", **values}),
        model=next((m for name in _MODELS if (m := reader.text(name))), None),
        settings=settings,
    )


def _first(reader: Reader, names: tuple[str, ...], default: object) -> object:
    return next((reader.take(name) for name in names if reader.has(name)), default)


DIALECT = Dialect(
    trainer="OpenRLHF",
    version="0.11.0",
    follows="openrlhf.models.actor.Actor, openrlhf.models.model.get_llm_for_sequence_regression",
    own=frozenset({"pretrain", "ds.lora", "ds.lora.rank", "zero_stage", "micro_train_batch_size", "actor.freeze_visual_encoder"}),
    told=lambda data: "lora_rank" in data or "ds" in data,
    decides={
        **{name: f"{field}, {default} where it is left out" for field, (names, default) in _NAMES.items() for name in names},
        **dict.fromkeys(_MODELS, "the base model"),
        **dict.fromkeys(_CHECKPOINTING, "activation checkpointing"),
        **dict.fromkeys(_REENTRANT, "its kind; non-reentrant where it is left out"),
        **dict.fromkeys(_FROZEN_VISION, "freezes what is outside the language model"),
    },
    warned={},
    indifferent=frozenset({"reward_pretrain", "critic_pretrain", "adam_offload", "ds.adam_offload"}),
    read=_read,
)
