"""torchtune: a YAML whose `model` is a `_component_` with `lora_attn_modules`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft_inspect.load.trainers.recognised import Reader, Recognised, Settings
from peft_inspect.records import InspectionError

_HF_NAMES = {"output_proj": "o_proj"}  # torchtune's names of attention projections, where transformers' differ
_MLP = ("gate_proj", "up_proj", "down_proj")


def read(data: Mapping[str, Any], where: str) -> Recognised | None:
    """A torchtune config; None for any other."""
    model = data.get("model")
    component = str(model.get("_component_")) if isinstance(model, Mapping) else ""
    if not isinstance(model, Mapping) or not ("lora_attn_modules" in model or component.startswith("torchtune.")):
        return None
    if "lora_attn_modules" not in model:
        raise InspectionError(f"{where} is a config of torchtune with model: {component}, which trains no LoRA")
    reader, parts = Reader(data, where), Reader(model, f"{where}: model")
    reader.take("model")
    targets = [_HF_NAMES.get(name, name) for name in parts.names("lora_attn_modules") or ()]
    targets += [*_MLP] if parts.take("apply_lora_to_mlp") else []
    targets += ["lm_head"] if parts.take("apply_lora_to_output") else []
    renamed = parts.renamed({"lora_rank": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "use_dora": "use_dora"})
    fields = {"task_type": "CAUSAL_LM", "target_modules": targets, **renamed}
    checkpointing = bool(reader.take("enable_activation_checkpointing", False))
    settings = Settings(gradient_checkpointing=checkpointing, checkpointing_kwargs={"use_reentrant": False})
    component = str(parts.take("_component_", "its own model class"))
    note = f"{component} is inspected as transformers' model of the same weights, with transformers' module names"
    return Recognised(fields, _checkpoint_folder(reader), settings, (note, reader.note("torchtune")))


def _checkpoint_folder(reader: Reader) -> str | None:
    """The folder with the base model's files, where it lies on this machine."""
    folder = reader.mapping("checkpointer").get("checkpoint_dir")
    return folder if isinstance(folder, str) and Path(folder).is_dir() else None
