"""Axolotl: one YAML with `base_model`, `adapter` and fields that start with `lora_` or `peft_`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from peft_inspect.load.lora.lora_values import not_a_pattern
from peft_inspect.load.trainers.recognised import Reader, Recognised, Settings, at_revision, quantisation_note
from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
_MARKS = {"lora_r", "lora_target_linear", "sequence_len", "micro_batch_size"}
_TASKS = {"SequenceClassification": "SEQ_CLS", "TokenClassification": "TOKEN_CLS"}  # by what the model's class is called


def read(data: Mapping[str, Any], where: str) -> Recognised | None:
    """An axolotl config; None for any other."""
    if not ({"base_model", "adapter"} & data.keys() and _MARKS & data.keys()):
        return None
    reader = Reader(data, where)
    if (adapter := reader.take("adapter")) not in ("lora", "qlora"):
        raise InspectionError(f"{where} is a config of axolotl with adapter: {adapter or 'none'}, which trains no LoRA")
    targets = reader.take("lora_target_modules")
    model_class = reader.text("type_of_model") or reader.text("model_type") or ""
    task = next((task for name, task in _TASKS.items() if name in model_class), "CAUSAL_LM")
    fields = {**reader.renamed(_FIELDS), "task_type": task}
    fields["target_modules"] = targets if isinstance(targets, str) else reader.names("lora_target_modules")
    if reader.take("lora_target_linear") or targets == ["all-linear"]:
        fields["target_modules"] = "all-linear"
    fields["target_parameters"] = reader.names("lora_target_parameters")
    trained = _trained(reader, where)
    settings = Settings(
        gradient_checkpointing=bool(reader.take("gradient_checkpointing", False)),
        checkpointing_kwargs=reader.mapping("gradient_checkpointing_kwargs"),
        input_gradients=True,
        frozen=(rf"^(?!{trained})",) if trained else (),  # all others, the adapter among them
        unfrozen=(f"^{trained}",) if trained else (),
    )
    model = at_revision(reader.text("base_model"), reader.text("revision_of_model") or reader.text("model_revision"))
    overrides = reader.mapping("overrides_of_model_config") or reader.mapping("model_config")
    config = {**reader.renamed({"num_labels": "num_labels"}), **overrides}
    notes = (*quantisation_note(reader), reader.note("axolotl"))
    return Recognised({name: value for name, value in fields.items() if value is not None}, model, settings, notes, config)


def _trained(reader: Reader, where: str) -> str:
    """One regular expression for the start of the parameters that `unfrozen_parameters` trains; empty where it names none.

    Axolotl matches the names of the wrapped model, takes every dot but that of `.+` literally, and may restrict a pattern to
    rows of the tensor: `[:32000]`.
    """
    bare = (re.sub(r"\[\d*(:\d*)?\]$", "", pattern) for pattern in reader.names("unfrozen_parameters") or ())
    literal = [re.sub(r"\.(?!\+)", r"\\.", pattern) for pattern in bare]
    for pattern in literal:
        if why := not_a_pattern(pattern):
            raise InspectionError(f"{where}: unfrozen_parameters holds no regular expression: {why} in {pattern!r}")
    return f"(?:{'|'.join(literal)})" if literal else ""
