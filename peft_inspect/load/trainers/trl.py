"""TRL: the YAML of its scripts, with `model_name_or_path`, `use_peft` and fields that start with `lora_`.

Follows `get_peft_config` of trl/trainer/utils.py, `ModelConfig` of trl/trainer/model_config.py with its defaults, and the training
arguments' own default for activation checkpointing, read in 1.16.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.recognised import Recognised, Settings, at_revision, present

if TYPE_CHECKING:
    from peft_inspect.load.trainers.reader import Reader

_FIELDS = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_modules_to_save": "modules_to_save",
    "lora_task_type": "task_type",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}
_DEFAULTS = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "task_type": "CAUSAL_LM"}


def _read(reader: Reader) -> Recognised:
    if not reader.take("use_peft", False):
        raise reader.refusal("without `use_peft: true`: TRL would train the whole model and ignore the lora_ fields")
    # TRL passes a single entry on as text: as a shorthand or a regular expression.
    entries = reader.names("lora_target_modules") or []
    fields = {
        **_DEFAULTS,
        **reader.renamed(_FIELDS),
        "target_modules": entries[0] if len(entries) == 1 else entries or None,
        "target_parameters": reader.names("lora_target_parameters"),
    }
    settings = Settings(
        gradient_checkpointing=bool(reader.take("gradient_checkpointing", True)),
        checkpointing_kwargs=reader.mapping("gradient_checkpointing_kwargs") or {"use_reentrant": False},
        input_gradients=True,
    )
    return Recognised(present(fields), at_revision(reader.text("model_name_or_path"), reader.text("model_revision")), settings)


DIALECT = Dialect(
    trainer="TRL",
    version="1.16.0",
    follows="trl.trainer.utils.get_peft_config, trl.trainer.model_config.ModelConfig",
    own=frozenset({"use_peft", "lora_target_modules", "lora_task_type", "lora_modules_to_save", "lora_r"}),
    told=lambda data: "base_model" not in data and "checkpoint_dir" not in data,
    decides={
        "model_name_or_path": "the base model",
        "model_revision": "its revision",
        "use_peft": "whether there is a LoRA",
        "lora_target_modules": "target_modules; a single entry is passed on as text, a shorthand or a regular expression",
        "lora_target_parameters": "target_parameters",
        "gradient_checkpointing": "activation checkpointing, on where it is left out",
        "gradient_checkpointing_kwargs": "its kind; non-reentrant where it is left out",
        **{name: f"{field}{f', {_DEFAULTS[field]} where it is left out' if field in _DEFAULTS else ''}" for name, field in _FIELDS.items()},
    },
    warned={},
    indifferent=frozenset({"use_liger_kernel", "attn_implementation", "bnb_4bit_quant_type", "bnb_4bit_quant_storage"}),
    read=_read,
)
