"""LLaMA-Factory's second generation: `model`, and a `peft_config` section with a `name`.

Follows `get_lora_model`, `_find_all_linear_modules`, `load_adapter` and the defaults of `LoraParams` in
llamafactory/v1/plugins/model_plugins/peft.py, read in 0.9.6.dev0 (ff6d4d12e, August 2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.recognised import Chosen, Recognised, Settings
from peft_inspect.load.trainers.search import linear_names

if TYPE_CHECKING:
    from peft_inspect.load.trainers.reader import Reader

_FIELDS = ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "modules_to_save")
_DEFAULTS = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05}
_NO_TARGETS = ("lm_head", "output_layer", "output", "score", "classifier")  # texts in the paths of layers that `all` leaves out
_CLASSES = {"ForTokenClassification": "TOKEN_CLS", "ForSequenceClassification": "SEQ_CLS"}


def _read(reader: Reader) -> Recognised:
    if (name := reader.take("peft_config.name")) != "lora":
        raise reader.refusal(f"with peft_config.name: {name}, which trains no LoRA")
    adapters = reader.names("peft_config.adapter_name_or_path") or []
    if reader.has("peft_config.export_dir"):
        which = f": to inspect the adapter, name its folder as MODEL: {adapters[-1]}" if adapters else ""
        raise reader.refusal(f"for merging, which trains no LoRA{which}")
    targets = reader.take("peft_config.target_modules", "all")
    asked = {name: reader.take(f"peft_config.{name}") for name in _FIELDS}
    fields = {
        **_DEFAULTS,
        **{name: value for name, value in asked.items() if value is not None},
        "task_type": "CAUSAL_LM",
        "target_modules": [targets] if isinstance(targets, str) else reader.names("peft_config.target_modules"),
    }
    return Recognised(
        fields=fields,
        model=reader.text("model"),
        settings=Settings(
            gradient_checkpointing=bool(reader.take("enable_activation_checkpointing", True)), checkpointing_kwargs={"use_reentrant": False}
        ),
        for_model=_for_model,
        resumed=adapters[0] if adapters else None,
    )


def _for_model(model: Any, fields: Mapping[str, Any]) -> Chosen:
    task = next((task for ending, task in _CLASSES.items() if type(model).__name__.endswith(ending)), "CAUSAL_LM")
    targets = fields["target_modules"]
    return Chosen({"task_type": task, "target_modules": linear_names(model, without=_NO_TARGETS) if targets == ["all"] else targets})


DIALECT = Dialect(
    trainer="LLaMA-Factory (v1)",
    version="0.9.6.dev0",
    follows="llamafactory.v1.plugins.model_plugins.peft.get_lora_model",
    own=frozenset({"peft_config.name", "model_class", "train_dataset", "sample_backend", "dist_config", "kernel_config"}),
    told=lambda data: isinstance(data.get("peft_config"), Mapping) and "name" in data["peft_config"],
    decides={
        "model": "the base model",
        "peft_config.name": "whether there is a LoRA",
        "peft_config.target_modules": "the targets; `all` is the names of the linear layers outside heads and outputs",
        "peft_config.adapter_name_or_path": "the trained adapter that is resumed; its own config wins",
        "peft_config.export_dir": "the file is for merging",
        "enable_activation_checkpointing": "activation checkpointing",
        **{f"peft_config.{name}": name for name in _FIELDS},
    },
    warned={},
    indifferent=frozenset({"kernel_config", "dist_config", "init_config", "model_class", "quant_config.double_quantization"}),
    read=_read,
)
