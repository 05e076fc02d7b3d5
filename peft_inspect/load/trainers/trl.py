"""TRL: the YAML of its scripts, with `model_name_or_path`, `use_peft` and fields that start with `lora_`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft_inspect.load.trainers.recognised import Reader, Recognised, Settings, at_revision, quantisation_note
from peft_inspect.records import InspectionError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_modules_to_save": "modules_to_save",
    "lora_target_parameters": "target_parameters",
    "lora_task_type": "task_type",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}
_DEFAULTS = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "task_type": "CAUSAL_LM"}


def read(data: Mapping[str, Any], where: str) -> Recognised | None:
    """A config of TRL's scripts; None for any other."""
    if not {"use_peft", "lora_r", "lora_target_modules"} & data.keys():
        return None
    reader = Reader(data, where)
    if not reader.take("use_peft", False):
        raise InspectionError(
            f"{where} is a config of TRL without `use_peft: true`: TRL would train the whole model and ignore the lora_ fields"
        )
    fields = {**_DEFAULTS, **reader.renamed(_FIELDS)}
    # TRL passes a single entry on as text: as a shorthand or a regular expression.
    entries = reader.names("lora_target_modules") or []
    fields["target_modules"] = entries[0] if len(entries) == 1 else entries or None
    settings = Settings(
        gradient_checkpointing=bool(reader.take("gradient_checkpointing", True)),
        checkpointing_kwargs=reader.mapping("gradient_checkpointing_kwargs") or {"use_reentrant": False},
        input_gradients=True,
    )
    model, revision = reader.text("model_name_or_path"), reader.text("model_revision")
    notes = (*quantisation_note(reader), reader.note("TRL"))
    return Recognised({name: value for name, value in fields.items() if value is not None}, at_revision(model, revision), settings, notes)
