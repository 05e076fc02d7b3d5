"""Axolotl: one YAML with `base_model`, `adapter` and fields that start with `lora_` or `peft_`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from peft_inspect.load.trainers.recognised import Reader, Recognised, Settings, at_revision, names, quantisation_note
from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_FIELDS = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_fan_in_fan_out": "fan_in_fan_out",
    "lora_modules_to_save": "modules_to_save",
    "lora_exclude_modules": "exclude_modules",
    "lora_bias": "bias",
    "peft_layers_to_transform": "layers_to_transform",
    "peft_layers_pattern": "layers_pattern",
    "peft_use_dora": "use_dora",
    "peft_use_rslora": "use_rslora",
    "peft_init_lora_weights": "init_lora_weights",
    "peft_ensure_weight_tying": "ensure_weight_tying",
    "peft_layer_replication": "layer_replication",
    "peft_trainable_token_indices": "trainable_token_indices",
}
_TASKS = {"SequenceClassification": "SEQ_CLS", "TokenClassification": "TOKEN_CLS"}  # by what the model's class is called


def read(data: Mapping[str, Any], where: str) -> Recognised | None:
    """An axolotl config; None for any other."""
    if "base_model" not in data or not ({"adapter", "lora_r", "sequence_len", "micro_batch_size"} & data.keys()):
        return None
    reader = Reader(data)
    if (adapter := reader.take("adapter")) not in ("lora", "qlora"):
        raise InspectionError(f"{where} is a config of axolotl with adapter: {adapter or 'none'}, which trains no LoRA")
    targets = reader.take("lora_target_modules")
    model_class = _either(reader, "type_of_model", "model_type") or ""
    task = next((task for name, task in _TASKS.items() if name in model_class), "CAUSAL_LM")
    fields = {**reader.renamed(_FIELDS), "task_type": task}
    fields["target_modules"] = targets if isinstance(targets, str) else names(targets)
    if reader.take("lora_target_linear") or targets == ["all-linear"]:
        fields["target_modules"] = "all-linear"
    fields["target_parameters"] = names(reader.take("lora_target_parameters"))
    trained = _trained(reader.take("unfrozen_parameters", ()))
    settings = Settings(
        gradient_checkpointing=bool(reader.take("gradient_checkpointing", False)),
        checkpointing_kwargs=reader.take("gradient_checkpointing_kwargs", {}),
        input_gradients=True,
        frozen=(rf"^(?!{trained})",) if trained else (),  # all others, the adapter among them
        unfrozen=(f"^{trained}",) if trained else (),
    )
    model = at_revision(reader.take("base_model"), _either(reader, "revision_of_model", "model_revision"))
    config = {**reader.renamed({"num_labels": "num_labels"}), **(_either(reader, "overrides_of_model_config", "model_config") or {})}
    notes = (*quantisation_note(reader), reader.note("axolotl", where))
    return Recognised({name: value for name, value in fields.items() if value is not None}, model, settings, notes, config)


def _either(reader: Reader, name: str, alias: str) -> Any:
    """A field under its name or the one that axolotl takes for it too."""
    value, other = reader.take(name), reader.take(alias)
    return other if value is None else value


def _trained(patterns: str | Iterable[str]) -> str:
    """One regular expression for the start of the parameters that `unfrozen_parameters` trains; empty where it names none.

    Axolotl matches the names of the wrapped model, takes every dot but that of `.+` literally, and may restrict a pattern to
    rows of the tensor: `[:32000]`.
    """
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    bare = (re.sub(r"\[\d*(:\d*)?\]$", "", pattern) for pattern in given)
    literal = [re.sub(r"\.(?!\+)", r"\\.", pattern) for pattern in bare]
    return f"(?:{'|'.join(literal)})" if literal else ""
