"""LitGPT: one YAML with `checkpoint_dir` and `lora_query`, `lora_key`, `lora_value`, `lora_projection`, `lora_mlp`, `lora_head`.

Follows `setup` of litgpt/finetune/lora.py with its defaults, and `CausalSelfAttention`, the MLPs, `LLaMAMoE` and `GPT` of litgpt/lora.py,
read in 0.5.13 (26857050, June 2026). LitGPT builds the model itself, with query, key and value in one matrix of which it adapts parts;
shown are the layers of the same weights in transformers' model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from peft_inspect.load.trainers.dialect import Dialect
from peft_inspect.load.trainers.layers_by_work import Layers
from peft_inspect.load.trainers.recognised import Chosen, Recognised

if TYPE_CHECKING:
    from peft_inspect.load.trainers.reader import Reader

_PARTS = {  # a switch → its default, and the works of the layers that it adapts
    "lora_query": (True, ("query",)),
    "lora_key": (False, ("key",)),
    "lora_value": (True, ("value",)),
    "lora_projection": (False, ("attention output",)),
    "lora_mlp": (False, ("gate", "up", "down", "router")),
    "lora_head": (False, ("head",)),
}
_DEFAULTS = {"lora_r": ("r", 8), "lora_alpha": ("lora_alpha", 16), "lora_dropout": ("lora_dropout", 0.05)}


def _read(reader: Reader) -> Recognised:
    if not any(reader.has(name) for name in (*_PARTS, *_DEFAULTS)):
        raise reader.refusal("without any lora_ field, which trains no LoRA")
    works = [work for name, (default, found) in _PARTS.items() for work in (found if reader.flag(name, default=default) else ())]
    if not works or not reader.whole("lora_r", 8):
        raise reader.refusal("in which no part gets an adapter: set one of lora_query, lora_key, … to true")
    fields = {field: reader.number(name, default) for name, (field, default) in _DEFAULTS.items()}
    return Recognised(
        fields={"task_type": "CAUSAL_LM", **fields},
        model=reader.text("checkpoint_dir"),
        notes=("LitGPT's own model class is inspected as transformers' model of the same weights, with transformers' module names",),
        for_model=partial(_for_model, works),
    )


def _for_model(works: list[str], model: Any, fields: Mapping[str, Any]) -> Chosen:
    return Layers(model).chosen(works, "LitGPT", fields)


DIALECT = Dialect(
    trainer="LitGPT",
    version="0.5.13",
    follows="litgpt.finetune.lora.setup, litgpt.lora",
    own=frozenset({*_PARTS, "checkpoint_dir"}),
    told=lambda data: (
        bool(_PARTS.keys() & data.keys())
        or {"checkpoint_dir", "lora_r"} <= data.keys()
        or {"checkpoint_dir", "train", "out_dir"} <= data.keys()
    ),
    decides={
        "checkpoint_dir": "the folder of the base model",
        **{name: f"{field}, {default} where it is left out" for name, (field, default) in _DEFAULTS.items()},
        **{
            name: f"adapters on the layers for {' and '.join(works)}, {'on' if default else 'off'} where it is left out"
            for name, (default, works) in _PARTS.items()
        },
    },
    warned={},
    read=_read,
)
